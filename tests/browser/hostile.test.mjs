// A report over names, ids and texts that are written to run as code when they are not escaped.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { PROGRAM, hostileReport } from './hostile_report.mjs';
import { launch, unfold, withReport } from './harness.mjs';

const given = process.env.HOSTILE_REPORT;
const made = given ? null : hostileReport();
const folder = given ?? made;

describe('hostile names', { skip: folder ? false : `${PROGRAM} is not built, and HOSTILE_REPORT names no report` }, () => {
  let browser;
  before(async () => {
    browser = await launch();
  });
  after(() => {
    if (made) {
      rmSync(path.dirname(made), { recursive: true });
    }
    return browser?.close();
  });

  test('are shown and never run', { timeout: 120_000 }, () => withReport(browser, folder, {}, staysText));
});

async function staysText(page, seen) {
  await unfold(page);
  // What is looked for is there at all.
  assert.ok((await page.locator('main').innerText()).includes('<img src=x onerror="window.pwned=1">'), 'no hostile name is shown');
  const opened = await page.evaluate(readHarm);
  // Text that a script copies from an attribute into the page can come alive there.
  await useEverything(page);
  const used = await page.evaluate(readHarm);
  const harmless = { pwned: 'undefined', handlers: [], embedded: [], scripts: 1 };
  assert.deepEqual(opened, harmless, 'after opening');
  assert.deepEqual(used, harmless, 'after use');
  assert.deepEqual(seen, { faults: [], requests: [] });
}

function readHarm() {
  const tag = (element) => element.cloneNode(false).outerHTML.slice(0, 200);
  const isAddress = (name) => ['href', 'xlink:href', 'src', 'action', 'formaction'].includes(name);
  const runs = ({ name, value }) => name.startsWith('on') || (isAddress(name) && /^\s*javascript:/i.test(value));
  return {
    pwned: typeof window.pwned,
    handlers: [...document.querySelectorAll('*')].filter((element) => [...element.attributes].some(runs)).map(tag),
    embedded: [...document.querySelectorAll('iframe, object, embed, base, form, foreignObject, script[src], meta[http-equiv="refresh" i]')].map(tag),
    scripts: document.querySelectorAll('script').length,
  };
}

async function useEverything(page) {
  await page.evaluate(() => {
    for (const tip of document.querySelectorAll('.tip')) {
      for (const kind of ['pointerover', 'pointerenter', 'pointermove', 'mouseover', 'mouseenter', 'mousemove', 'focusin', 'focus']) {
        tip.dispatchEvent(new MouseEvent(kind, { bubbles: !/enter$|^focus$/.test(kind), clientX: 100, clientY: 100 }));
      }
    }
    for (const button of document.querySelectorAll('th button')) {
      button.click();
    }
  });
  const ids = await page.locator('[data-item]').evaluateAll((items) => [...new Set(items.map((item) => item.dataset.item))]);
  for (const id of [...ids.slice(0, 50), '<img src=x onerror="window.pwned=1">']) {
    for (const field of await page.locator('input#find, input.filter').all()) {
      await field.fill(id);
      await field.press('Enter');
    }
  }
  // Loads that fail do so later.
  await page.waitForTimeout(300);
}
