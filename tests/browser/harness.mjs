// What all browser checks share: which reports, the browser, a page that is watched, waiting for a state.
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { chromium } from 'playwright-core';

const REPOSITORY = path.resolve(import.meta.dirname, '../..');

/** What a reader can press or type into; of no use on paper or without a script. */
export const CONTROLS = '.tools, #theme, #find';

/** The folders that REPORTS names, one a line; without it, the repository's examples. */
export function reportFolders() {
  const named = (process.env.REPORTS ?? '').split('\n').filter(Boolean);
  if (named.length > 0) {
    return named;
  }
  const all = path.join(REPOSITORY, 'reports/example');
  return readdirSync(all)
    .map((name) => path.join(all, name))
    .filter((folder) => existsSync(path.join(folder, 'report.html')));
}

export function reportFile(folder) {
  return path.join(folder, 'report.html');
}

export function launch() {
  // Chromium's sandbox refuses to run as root.
  const args = process.getuid?.() === 0 ? ['--no-sandbox', '--disable-gpu'] : ['--disable-gpu'];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args });
}

/**
 * Opens the report in a fresh context, hands the page and what was seen of it to `body`, and closes it.
 * Faults that using the page brings (an exception in a handler) fail the check that used it; those of opening it belong to the
 * check of the clean console, so that one of them does not fail every check.
 */
export async function withReport(browser, folder, options, body) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light', ...options });
  try {
    context.setDefaultTimeout(5000);
    const page = await context.newPage();
    const url = pathToFileURL(reportFile(folder)).href;
    const seen = await watch(page, url);
    await page.goto(url);
    const before = seen.faults.length;
    await body(page, seen);
    const brought = seen.faults.slice(before);
    if (brought.length > 0) {
      throw new Error(`using the page brought: ${brought.join('; ')}`);
    }
  } finally {
    await context.close();
  }
}

async function watch(page, url) {
  const seen = { faults: [], requests: [] };
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) {
      seen.faults.push(`console ${message.type()}: ${message.text()}`);
    }
  });
  page.on('pageerror', (error) => seen.faults.push(`exception: ${error.message}`));
  page.on('dialog', (dialog) => {
    seen.faults.push(`dialog: ${dialog.message()}`);
    return dialog.dismiss();
  });
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`content security policy: ${event.violatedDirective} blocked ${event.blockedURI}`);
    });
  });
  const stays = (request) => request.split('#')[0] === url || request.startsWith('data:');
  page.on('request', (request) => stays(request.url()) || seen.requests.push(request.url()));
  page.on('websocket', (socket) => seen.requests.push(socket.url()));
  await page.route('**/*', (route) => (stays(route.request().url()) ? route.continue() : route.abort()));
  return seen;
}

/** What a reader unfolds with a click must be as right as the rest. */
export function unfold(page) {
  return page.evaluate(() => {
    for (const details of document.querySelectorAll('details')) {
      details.open = true;
    }
  });
}

/** Reads until it sees what is wanted: handlers may be deferred, colours and scrolling may be animated. */
export async function eventually(what, read, wanted) {
  const end = Date.now() + 2000;
  let saw = await read();
  while (!isDeepStrictEqual(saw, wanted) && Date.now() < end) {
    await sleep(40);
    saw = await read();
  }
  if (!isDeepStrictEqual(saw, wanted)) {
    throw new Error(`${what}: saw ${JSON.stringify(saw)}, wanted ${JSON.stringify(wanted)}`);
  }
}
