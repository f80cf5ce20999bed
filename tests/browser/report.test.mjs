// Each report as its reader meets it: opened from disk, offline, in a real browser.
import assert from 'node:assert/strict';
import { mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import axe from 'axe-core';
import { CONTROLS, eventually, launch, reportFile, reportFolders, unfold, withReport } from './harness.mjs';

const VERDICT_PARTS = ['#verdict h1', '#decision', '#next-steps', '#breaks', '#turning'];
const SORTABLE = 'table.sortable';
const SCREENSHOTS = path.join(import.meta.dirname, 'screenshots');
// No word of a report, and no valid regular expression, selector or HTML.
const HOSTILE = '[.*("\'\\<';

const folders = reportFolders();
assert.ok(folders.length > 0, 'there is no report to test');

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

for (const folder of folders) {
  describe(path.basename(folder), () => {
    const check = (name, body, options = {}) =>
      test(name, { timeout: 120_000 }, (t) => withReport(browser, folder, options, (page, seen) => body(page, t, seen)));

    check('the console is clean', consoleIsClean);
    check('no request leaves', noRequestLeaves);
    check('the verdict is in view without scrolling', verdictIsInView);
    check('the page never scrolls sideways', neverScrollsSideways);
    check('tables sort by a click', tablesSort);
    check('tables sort by the keyboard', tablesSortByKeyboard);
    check('filters hide the other rows', filtersHideRows);
    check('figures tell their values on hover', figuresTellOnHover);
    check('an item is found by its id', itemIsFound);
    check('the theme is the reader\'s', themeIsTheReaders);
    check('the theme follows the system', themeFollowsTheSystem);
    check('it prints whole, on white', printsWhole, { viewport: { width: 718, height: 1000 }, colorScheme: 'dark' });
    check('it reads without a script', readsWithoutScript, { javaScriptEnabled: false });
    check('the skip link is the first stop of Tab', skipLinkIsFirst);
    for (const [name, options] of [
      ['1280 light', {}],
      ['1280 dark', { colorScheme: 'dark' }],
      ['360 light', { viewport: { width: 360, height: 800 } }],
    ]) {
      // axe is a script from outside the report, which the report's policy rightly refuses.
      check(`axe finds nothing serious, ${name}`, axeFindsNothing, { ...options, bypassCSP: true });
    }
    test('it opens fast', () => opensFast(folder));
    test('screenshots', () => takeScreenshots(folder));
  });
}

async function consoleIsClean(page, t, seen) {
  await scrollThrough(page);
  assert.deepEqual(seen.faults, []);
}

async function noRequestLeaves(page, t, seen) {
  // Prefetches and lazy pictures need not show up as requests while somebody watches.
  const references = await page.evaluate(() => {
    const outside = (address) => !/^(data:|#)/.test(address);
    const loads = [...document.querySelectorAll('[src], [srcset], [poster], link[href], object[data], image, use')];
    return loads
      .flatMap((element) => ['src', 'srcset', 'poster', 'href', 'xlink:href', 'data'].map((name) => element.getAttribute(name)))
      .filter((address) => address !== null && outside(address))
      .concat([...document.querySelectorAll('meta[http-equiv="refresh" i]')].map((meta) => `refresh ${meta.content}`));
  });
  await scrollThrough(page);
  assert.deepEqual([...new Set([...seen.requests, ...references])], []);
}

async function scrollThrough(page) {
  await unfold(page);
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  for (let y = 0; y <= height; y += 800) {
    await page.evaluate((top) => window.scrollTo(0, top), y);
  }
  await page.waitForTimeout(100);
}

async function verdictIsInView(page) {
  const faults = [];
  for (const part of VERDICT_PARTS) {
    const box = (await page.locator(part).count()) === 1 ? await page.locator(part).boundingBox() : null;
    if (!box) {
      faults.push(`${part} is not there`);
    } else if (box.y < 0 || box.y + box.height > 800) {
      faults.push(`${part} reaches from ${box.y} to ${box.y + box.height}`);
    }
  }
  assert.deepEqual(faults, []);
}

async function neverScrollsSideways(page) {
  await unfold(page);
  const faults = [];
  for (const width of [360, 768, 1280, 1920]) {
    await page.setViewportSize({ width, height: 800 });
    const reach = await page.evaluate(() => document.documentElement.scrollWidth);
    if (reach > width) {
      faults.push({ width, reach, culprits: await page.evaluate(sticksOut) });
    }
  }
  assert.deepEqual(faults, []);
}

/** The innermost elements beyond the window's edge; those in a box that scrolls by itself do no harm. */
function sticksOut() {
  const beyond = (element) => element.getBoundingClientRect().right > innerWidth + 0.5;
  const boxed = (element) => {
    const parent = element.parentElement;
    return parent !== null && (getComputedStyle(parent).overflowX !== 'visible' || boxed(parent));
  };
  return [...document.body.querySelectorAll('*')]
    .filter((element) => beyond(element) && !boxed(element) && ![...element.children].some(beyond))
    .slice(0, 5)
    .map((element) => element.cloneNode(false).outerHTML);
}

async function tablesSort(page) {
  await unfold(page);
  assert.ok(await page.locator('#checks table.sortable').count(), 'there is no sortable table of checks');
  for (const table of await page.locator(SORTABLE).all()) {
    const { name, columns, bare } = await table.evaluate(describeTable);
    assert.deepEqual(bare, [], `${name}: headers without exactly one button`);
    const rows = await table.evaluate(readRows);
    for (const [index, column] of columns.entries()) {
      for (const direction of ['ascending', 'descending']) {
        const what = `${name}, ${column}, ${direction}`;
        await table.locator('thead th').nth(index).locator('button').click();
        await eventually(what, () => table.evaluate(readSort), [{ index, direction }]);
        await eventually(what, () => table.evaluate(orderFaults, { index, direction }), []);
        assert.deepEqual((await table.evaluate(readRows)).sort(), [...rows].sort(), `${what}: rows lost or doubled`);
      }
    }
  }
}

async function tablesSortByKeyboard(page) {
  await unfold(page);
  for (const table of await page.locator(SORTABLE).all()) {
    const { name } = await table.evaluate(describeTable);
    const button = table.locator('thead th').first().locator('button');
    await button.focus();
    for (const direction of ['ascending', 'descending']) {
      await page.keyboard.press('Enter');
      await eventually(`${name}, Enter`, () => table.evaluate(readSort), [{ index: 0, direction }]);
      await eventually(`${name}, Enter`, () => table.evaluate(orderFaults, { index: 0, direction }), []);
      assert.ok(await button.evaluate((element) => element === document.activeElement), `${name}: sorting takes the focus away`);
    }
  }
}

function describeTable(table) {
  const heads = [...table.querySelectorAll('thead th')];
  const columns = heads.map((head) => head.textContent.trim());
  return {
    name: `table of ${columns.join(' | ')}`,
    columns,
    bare: heads.filter((head) => head.querySelectorAll('button').length !== 1).map((head) => head.outerHTML),
  };
}

function readRows(table) {
  return [...table.tBodies].flatMap((body) => [...body.rows].map((row) => row.innerHTML));
}

/** The columns that the table says it is sorted by. */
function readSort(table) {
  return [...table.querySelectorAll('thead th')]
    .map((head, index) => ({ index, direction: head.getAttribute('aria-sort') ?? 'none' }))
    .filter((sort) => sort.direction !== 'none');
}

/**
 * Pairs of neighbours in the wrong order. A column of numbers (th.n) goes by the first number shown; its cells
 * without a number stand together at one end. Any other goes by its text less the small note, with or without regard to numbers in it.
 */
function orderFaults(table, { index, direction }) {
  const cells = [...table.tBodies].flatMap((body) => [...body.rows].map((row) => row.cells[index]));
  const sign = direction === 'ascending' ? 1 : -1;
  const wrong = (values, compare) =>
    values.slice(1).flatMap((value, i) => (sign * compare(values[i], value) > 0 ? [`${values[i]} before ${value}`] : []));
  if (!table.querySelectorAll('thead th')[index].classList.contains('n')) {
    const texts = cells.map((cell) => {
      const bare = cell.cloneNode(true);
      bare.querySelectorAll('small').forEach((note) => note.remove());
      return bare.textContent.trim();
    });
    const plain = wrong(texts, (a, b) => a.localeCompare(b));
    const natural = wrong(texts, (a, b) => a.localeCompare(b, undefined, { numeric: true }));
    return natural.length > 0 ? plain : [];
  }
  const numbers = cells.map((cell) => {
    const text = (cell.firstChild?.textContent ?? '').replace(/,(?=\d{3})/g, '');
    const number = text.match(/[+-]?(\d+(\.\d+)?(e[+-]?\d+)?|inf)/i)?.[0];
    return number === undefined ? null : Number(number.replace(/inf/i, 'Infinity'));
  });
  const turns = numbers.slice(1).filter((number, i) => (number === null) !== (numbers[i] === null)).length;
  const scattered = turns > 1 ? ['cells without a number stand among numbers'] : [];
  const known = numbers.filter((number) => number !== null);
  return [...scattered, ...wrong(known, (a, b) => (a === b ? 0 : a - b))];
}

async function filtersHideRows(page, t) {
  const filters = await page.locator('input.filter').all();
  if (filters.length === 0) {
    return t.skip('the report has no filter');
  }
  await unfold(page);
  for (const filter of filters) {
    const { type, table, said } = await filter.evaluate((input) => ({
      type: input.type,
      table: document.getElementById(input.getAttribute('aria-controls'))?.tagName,
      said: input.closest('.tools')?.querySelectorAll('output').length,
    }));
    assert.deepEqual({ type, table, said }, { type: 'search', table: 'TABLE', said: 1 });
    const rows = await filter.evaluate(readFilteredRows);
    const word = rarestWord(rows);
    await filter.pressSequentially(word);
    await filterShows(filter, rows.filter((row) => row.text.includes(word)).length, word);
    await filter.fill('');
    await eventually('rows hidden without a filter', () => filter.evaluate(countHidden), 0);
    await filter.pressSequentially(HOSTILE);
    await filterShows(filter, 0, HOSTILE);
    await filter.fill('');
    await eventually('rows hidden without a filter', () => filter.evaluate(countHidden), 0);
  }
}

async function filterShows(filter, count, word) {
  const rows = await filter.evaluate(readFilteredRows);
  await eventually(`filtered by ${word}, said`, () => filter.evaluate(readSaid), `${count} of ${rows.length} rows`);
  const shown = (await filter.evaluate(readFilteredRows)).filter((row) => !row.hidden);
  assert.equal(shown.length, count, `rows shown for ${word}`);
  assert.ok(shown.every((row) => row.text.includes(word)), `a row without ${word} is shown`);
}

function readFilteredRows(input) {
  const table = document.getElementById(input.getAttribute('aria-controls'));
  return [...table.tBodies].flatMap((body) =>
    [...body.rows].map((row) => {
      const cells = [...row.cells].map((cell) => cell.textContent.trim());
      return { first: cells[0].toLowerCase(), text: cells.join(' ').toLowerCase(), hidden: row.hidden };
    }),
  );
}

function readSaid(input) {
  return input.closest('.tools').querySelector('output').textContent.trim();
}

function countHidden(input) {
  return document.getElementById(input.getAttribute('aria-controls')).querySelectorAll('tbody tr[hidden]').length;
}

/** The word of the first cells that the fewest rows hold, the longest of several: the one that hides the most. */
function rarestWord(rows) {
  const words = rows.flatMap((row) => row.first.split(/\s+/)).filter(Boolean);
  const held = (word) => rows.filter((row) => row.text.includes(word)).length;
  return words.sort((a, b) => held(a) - held(b) || b.length - a.length)[0];
}

async function figuresTellOnHover(page, t) {
  await unfold(page);
  const figures = [];
  for (const figure of await page.locator('figure svg:has(.tip)').all()) {
    if (await figure.isVisible()) {
      figures.push(figure);
    }
  }
  if (figures.length === 0) {
    return t.skip('no visible figure has values to tell');
  }
  const tip = page.locator('#tip');
  for (const figure of figures) {
    const mark = figure.locator('.tip').first();
    await mark.scrollIntoViewIfNeeded();
    const point = await mark.evaluate(pointOn);
    assert.ok(point, `no point of ${await mark.evaluate((element) => element.outerHTML)} is under the mouse`);
    await page.mouse.move(point.x, point.y);
    await eventually('#tip is visible on hover', () => tip.isVisible(), true);
    // Over #tip the mouse would have left the mark, and the two would take turns.
    const onTip = await tip.evaluate((element, { x, y }) => element.contains(document.elementFromPoint(x, y)), point);
    assert.equal(onTip, false, '#tip gets under the mouse');
    assert.notEqual((await tip.innerText()).trim(), '', '#tip is empty');
    const box = await tip.boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= 1280, `#tip reaches from ${box.x} to ${box.x + box.width}`);
    await page.keyboard.press('Escape');
    await eventually('#tip is visible after Escape', () => tip.isVisible(), false);
    await page.mouse.move(0, 0);
  }
}

/** A point where the mouse meets the element: the middle of a line's box need not be on the line. */
async function pointOn(element) {
  // Two frames on, the events of scrolling here are over: the page may put the tip away when it scrolls.
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const box = element.getBoundingClientRect();
  const steps = [0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 0, 1];
  return steps
    .flatMap((down) => steps.map((across) => ({ x: box.x + across * box.width, y: box.y + down * box.height })))
    .find(({ x, y }) => document.elementFromPoint(x, y)?.closest('.tip') === element);
}

async function itemIsFound(page, t) {
  const items = await page.locator('[data-item]').count();
  const find = page.locator('input#find');
  if (items === 0 && !(await find.isVisible())) {
    return t.skip('the report names no items');
  }
  const said = page.locator('#find-said');
  for (const id of ['no such id', HOSTILE]) {
    await find.fill(id);
    await find.press('Enter');
    await eventually(`said of ${id}`, async () => (await said.innerText()).includes('no item'), true);
  }
  const ids = await page.locator('[data-item]').evaluateAll((elements) => elements.map((element) => element.dataset.item));
  // The last one is out of view at first; the other is part of an id before it, which is not the one asked for.
  const shadowed = ids.find((id) => ids.find((other) => other.includes(id)) !== id);
  for (const id of [ids.at(-1), shadowed ?? ids[0]]) {
    await find.fill(id);
    await find.press('Enter');
    await eventually(`the item found for ${id}`, () => page.evaluate(readFound), { id, inView: true });
    assert.ok(!(await said.innerText()).includes('no item'), `${id} was found, yet the page says that it was not`);
  }
}

function readFound() {
  const found = document.querySelector('.found');
  const box = found?.getBoundingClientRect();
  return {
    id: found?.dataset.item,
    inView: Boolean(found?.checkVisibility() && box.height > 0 && box.bottom > 0 && box.top < innerHeight),
  };
}

const readTheme = (page) => page.evaluate(() => document.documentElement.dataset.theme);
const readBackground = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

async function themeIsTheReaders(page) {
  const light = await readBackground(page);
  await page.locator('#theme').click();
  await eventually('theme after one click', () => readTheme(page), 'dark');
  await eventually('the background changes', async () => (await readBackground(page)) !== light, true);
  await page.locator('#theme').click();
  await eventually('theme after two clicks', () => readTheme(page), 'light');
  await eventually('background after two clicks', () => readBackground(page), light);
  // The reader's choice outweighs the system's.
  await page.emulateMedia({ colorScheme: 'dark' });
  await eventually('background chosen light on a dark system', () => readBackground(page), light);
}

async function themeFollowsTheSystem(page) {
  const light = await readBackground(page);
  await page.emulateMedia({ colorScheme: 'dark' });
  await eventually('the background changes', async () => (await readBackground(page)) !== light, true);
  const dark = await readBackground(page);
  await page.locator('#theme').click();
  await eventually('theme after a click on a dark system', () => readTheme(page), 'light');
  await eventually('the background changes', async () => (await readBackground(page)) !== dark, true);
}

/** The window is as wide as A4 between margins of 1 cm, so what is cut off here is cut off on paper. */
async function printsWhole(page) {
  for (let clicks = 0; clicks < 2 && (await readTheme(page)) !== 'dark'; clicks += 1) {
    await page.locator('#theme').click();
  }
  // Paper shows neither the filter nor how many rows it hides: rows that it hides would be missing unnoticed.
  for (const filter of await page.locator('input.filter').all()) {
    if (await filter.isVisible()) {
      await filter.fill(HOSTILE);
    }
  }
  await page.emulateMedia({ media: 'print', colorScheme: 'dark' });
  await page.evaluate(lookWhenPrinting, CONTROLS);
  const pdf = await page.pdf();
  assert.equal(pdf.subarray(0, 4).toString(), '%PDF');
  assert.ok(pdf.length > 10_000, `the PDF has ${pdf.length} bytes`);
  const paper = await page.evaluate(() => window.paper);
  assert.deepEqual(paper, { background: 'rgb(255, 255, 255)', darkInk: true, controls: [], hiddenRows: [], cutCells: [] });
}

/** Looks when printing begins, after the report's own listeners, which may unfold things for paper and fold them again. */
function lookWhenPrinting(controls) {
  const name = (element) => element.textContent.trim().slice(0, 80);
  const isCut = (cell) => {
    const box = cell.getBoundingClientRect();
    for (let around = cell.parentElement; around; around = around.parentElement) {
      const frame = around.getBoundingClientRect();
      const clips = getComputedStyle(around).overflow !== 'visible';
      if (clips && (box.right > frame.right + 1 || box.bottom > frame.bottom + 1)) {
        return true;
      }
    }
    return false;
  };
  const background = () =>
    [document.body, document.documentElement]
      .map((element) => getComputedStyle(element).backgroundColor)
      .find((colour) => colour !== 'rgba(0, 0, 0, 0)');
  window.addEventListener('beforeprint', () => {
    const ink = getComputedStyle(document.body).color.match(/\d+/g).map(Number);
    window.paper = {
      background: background() ?? 'none',
      darkInk: Math.max(...ink.slice(0, 3)) < 128,
      controls: [...document.querySelectorAll(controls)].filter((control) => control.checkVisibility()).map((control) => control.outerHTML),
      hiddenRows: [...document.querySelectorAll('tbody tr')].filter((row) => !row.checkVisibility()).map(name).slice(0, 5),
      cutCells: [...document.querySelectorAll('td')].filter(isCut).map(name).slice(0, 5),
    };
  });
}

async function readsWithoutScript(page) {
  await unfold(page);
  for (const part of VERDICT_PARTS) {
    assert.ok(await page.locator(part).isVisible(), `${part} is not visible`);
  }
  const tables = await page.locator('table').all();
  assert.ok(tables.length > 0, 'there is no table');
  for (const table of tables) {
    assert.ok(await table.isVisible(), `the table ${await table.innerText()} is not visible`);
  }
  for (const control of await page.locator(CONTROLS).all()) {
    assert.ok(!(await control.isVisible()), `${await control.evaluate((element) => element.outerHTML)} does nothing, yet is visible`);
  }
}

async function skipLinkIsFirst(page) {
  const inSight = () =>
    page.locator('a.skip').evaluate((link) => {
      const box = link.getBoundingClientRect();
      return link.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2));
    });
  assert.equal(await inSight(), false, 'the skip link is in sight before it is focused');
  await page.keyboard.press('Tab');
  assert.ok(await page.evaluate(() => document.activeElement.matches('a.skip')), 'Tab stops at something else first');
  await eventually('the focused skip link is in sight', inSight, true);
  await page.keyboard.press('Enter');
  await eventually('the address after the skip', () => page.evaluate(() => location.hash), '#main');
  assert.equal(await page.locator('#main').count(), 1, 'there is no #main');
}

async function axeFindsNothing(page) {
  await unfold(page);
  await page.addScriptTag({ content: axe.source });
  // Off by default, and worth keeping: fingers hit links, and every cell knows its row.
  const rules = { 'target-size': { enabled: true }, 'td-has-header': { enabled: true } };
  const { violations } = await page.evaluate((rules) => window.axe.run(document, { resultTypes: ['violations'], rules }), rules);
  const grave = violations
    .filter(({ impact }) => ['serious', 'critical'].includes(impact))
    .map(({ id, help, nodes }) => ({ id, help, count: nodes.length, first: nodes.slice(0, 3).map((node) => node.target.join(' ')) }));
  assert.deepEqual(grave, []);
}

/** Nothing watches these pages: intercepted requests would be part of the time. */
async function opensFast(folder) {
  const { size } = statSync(reportFile(folder));
  assert.ok(size < 5_000_000, `the report has ${size} bytes`);
  const times = [];
  for (let i = 0; i < 5; i += 1) {
    const page = await browser.newPage();
    await page.goto(pathToFileURL(reportFile(folder)).href);
    times.push(await page.evaluate(() => performance.timing.loadEventEnd - performance.timing.navigationStart));
    await page.close();
  }
  // The fastest: what else the machine does can only slow the others.
  const fastest = Math.min(...times);
  assert.ok(fastest > 0 && fastest < 1000, `loaded in ${times} ms`);
}

async function takeScreenshots(folder) {
  mkdirSync(SCREENSHOTS, { recursive: true });
  for (const [name, options, fullPage] of [
    ['1280-light', {}, false],
    ['1280-dark', { colorScheme: 'dark' }, false],
    ['360', { viewport: { width: 360, height: 800 } }, false],
    ['1920', { viewport: { width: 1920, height: 1080 } }, false],
    ['full', {}, true],
  ]) {
    await withReport(browser, folder, options, (page) =>
      page.screenshot({ path: path.join(SCREENSHOTS, `${path.basename(folder)}-${name}.png`), fullPage }),
    );
  }
}
