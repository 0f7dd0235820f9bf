import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Browser, findBrowser, type Page } from '../../support/browser.js';
import { EVIL, everyKind, pageOf, pageWith } from './fixture.js';

const path = findBrowser();
const NONE =
  'SKIPPED: no Chromium here (set CHROMIUM, or have one on the PATH), so the page was not tried in a browser';
if (!path) console.warn(NONE);

describe.skipIf(!path)(path ? 'the page in Chromium' : NONE, () => {
  let browser: Browser;
  let server: Server;
  let address: string;
  let served: string[];
  /** Kept where the variable REPORT_SHOTS says, to be looked at. */
  let shots: string;
  const pages: Readonly<Record<string, string>> = { '/': pageOf(everyKind()), '/hostile': pageWith(EVIL) };

  beforeAll(async () => {
    shots = process.env.REPORT_SHOTS ?? mkdtempSync(join(tmpdir(), 'qs-shots-'));
    server = createServer(({ url = '' }, response) => {
      served.push(url);
      response.writeHead(pages[url] ? 200 : 404, { 'content-type': 'text/html; charset=utf-8' });
      response.end(pages[url]);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    browser = await Browser.start(path as string);
  }, 60_000);
  beforeEach(() => {
    served = [];
  });
  afterAll(async () => {
    await browser?.close();
    server?.close();
    if (!process.env.REPORT_SHOTS) rmSync(shots, { recursive: true });
  });

  const open = (more: object = {}) => browser.open(`${address}/`, more);
  const focusOn = (page: Page, selector: string) =>
    page.evaluate(`document.querySelector(${JSON.stringify(selector)}).focus()`);
  const tip = (page: Page) =>
    page.evaluate<string | null>(
      `(() => { const t = document.querySelector('.tip'); return t.hidden ? null : t.innerText.replaceAll(/\\s+/g, ' '); })()`,
    );

  test.each([
    [1280, false],
    [1280, true],
    [400, false],
    [400, true],
  ])(
    'at %d pixels, dark: %s: nothing to complain of, nothing sticks out, no request but for the page',
    async (width, dark) => {
      const page = await open({ width, dark });
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width);
      const back = await page.evaluate<string>('getComputedStyle(document.body).backgroundColor');
      expect(back).toBe(dark ? 'rgb(21, 23, 26)' : 'rgb(253, 252, 249)');
      const file = join(shots, `every-kind-${width}${dark ? '-dark' : ''}.png`);
      await page.screenshot(file);
      expect(readFileSync(file).length).toBeGreaterThan(100_000);
      // Nothing lies over its neighbour: text of plots stands inside their drawings.
      const outside = await page.evaluate(`[...document.querySelectorAll('.canvas')].flatMap((canvas) => {
      const box = canvas.getBoundingClientRect();
      return [...canvas.querySelectorAll('text')].filter((text) => {
        const { left, right, top, bottom } = text.getBoundingClientRect();
        return text.textContent && (left < box.left - 2 || right > box.right + 2 || top < box.top - 2 || bottom > box.bottom + 2);
      }).map((text) => text.textContent);
    })`);
      expect(outside).toEqual([]);
      expect(page.complaints).toEqual([]);
      expect(page.requests).toEqual([`${address}/`]);
      expect(served).toEqual(['/']);
    },
  );

  test('lets nothing out, even when asked to', async () => {
    const page = await open();
    const tries = await page.evaluate<string[]>(`(async () => {
      const found = [];
      await fetch('/fetch').then(() => found.push('fetch'), () => {});
      const image = new Image();
      await new Promise((done) => { image.onload = image.onerror = done; image.src = '/image'; });
      const script = document.createElement('script');
      script.textContent = 'window.ran = true';
      document.body.append(script);
      if (window.ran) found.push('script');
      document.body.setAttribute('style', 'color: rgb(1, 2, 3)');
      if (getComputedStyle(document.body).color === 'rgb(1, 2, 3)') found.push('style');
      navigator.sendBeacon('/beacon');
      return found;
    })()`);
    expect(tries).toEqual([]);
    expect(served).toEqual(['/']);
    expect(page.complaints.length).toBeGreaterThanOrEqual(4);
  });

  test('shows hostile texts as texts', async () => {
    const page = await browser.open(`${address}/hostile`);
    expect(page.complaints).toEqual([]);
    expect(served).toEqual(['/hostile']);
    const count = (selector: string) => page.evaluate<number>(`document.querySelectorAll('${selector}').length`);
    expect(await count('script:not([type="application/json"])')).toBe(1);
    expect(await count('img, b, textarea, [onload], [onerror], [onfocus], [autofocus]')).toBe(0);
    expect(await count('section')).toBe(await (await open()).evaluate(`document.querySelectorAll('section').length`));
    expect(await page.evaluate('document.body.innerText')).toContain('</script><script>alert(1)</script>');
  });

  test('the Tab key reaches everything there is to use, in the order of the page, and shows where it is', async () => {
    const page = await open({ width: 400 });
    // What scrolls is marked when the first frames are laid out, which may be after the page has loaded.
    await page.evaluate(
      'new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))',
    );
    const wanted = await page.evaluate<number>(`(() => {
      window.stops = [...document.querySelectorAll('a[href], button, input, summary, [tabindex="0"]')]
        .filter((one) => one.tabIndex >= 0 && one.checkVisibility());
      return stops.length;
    })()`);
    expect(wanted).toBeGreaterThan(30);
    const seen: Array<[number, boolean]> = [];
    for (let press = 0; press < wanted; press++) {
      await page.press('Tab');
      seen.push(
        await page.evaluate(`(() => {
          const one = document.activeElement;
          const shown = getComputedStyle(one).outlineStyle !== 'none' || one.matches('.reader');
          return [stops.indexOf(one), one.matches(':focus-visible') && shown];
        })()`),
      );
    }
    expect(seen).toEqual(Array.from({ length: wanted }, (_, index) => [index, true]));
    // Each group is a single stop; what scrolls sideways is one too.
    const names = await page.evaluate<string[]>(
      `stops.map((one) => one.closest('.legend, .tokens, .matrix tbody')).filter(Boolean).map((one) => one.className || one.localName)`,
    );
    const groups = { legend: 3, tokens: 5, tbody: 2 };
    for (const [name, count] of Object.entries(groups)) expect(names.filter((one) => one === name)).toHaveLength(count);
    expect(await page.evaluate(`stops.filter((one) => one.matches('.scroll')).length`)).toBeGreaterThan(1);
  });

  test('the first stop skips to the report', async () => {
    const page = await open();
    await page.press('Tab');
    expect(await page.evaluate('document.activeElement.textContent')).toBe('Skip to the report');
    expect(await page.evaluate('document.activeElement.getBoundingClientRect().top')).toBeGreaterThan(0);
    await page.press('Enter');
    expect(await page.evaluate('document.activeElement.id')).toBe('main');
  });

  test('everything that is used has a name, for those who do not see it', async () => {
    const page = await open();
    await page.send('Accessibility.enable');
    const { nodes } = await page.send<{
      nodes: Array<{ role?: { value: string }; name?: { value: string }; ignored: boolean }>;
    }>('Accessibility.getFullAXTree');
    const used = nodes.filter(
      ({ role, ignored }) =>
        !ignored &&
        /^(button|slider|link|image|region|navigation|toolbar|DisclosureTriangle)$/i.test(role?.value ?? ''),
    );
    expect(used.length).toBeGreaterThan(50);
    expect(used.filter(({ name }) => !name?.value)).toEqual([]);
  });

  test('a table is sorted by keyboard: numbers by size, what is not there last, and it is said', async () => {
    const page = await open();
    const column = (index: number) =>
      page.evaluate<string[]>(
        `[...document.querySelector('.sortable').tBodies[0].rows].map((row) => row.cells[${index}].dataset.value ?? row.cells[${index}].textContent)`,
      );
    const state = () =>
      page.evaluate(
        `[...document.querySelectorAll('.sortable th[aria-sort]')].map((th) => [th.textContent, th.ariaSort])`,
      );
    const before = await column(2);
    await focusOn(page, '.sortable th:nth-child(3) .sort');
    await page.press('Enter');
    expect(await column(2)).toEqual(['12', '12', '55.1', '59.2', '64.9', '71.4', 'NaN']);
    expect(await state()).toEqual([['perplexity', 'ascending']]);
    expect(await page.evaluate(`document.querySelector('[role=status]').textContent`)).toBe(
      'Sorted by perplexity, ascending.',
    );
    await page.press(' ');
    expect(await column(2)).toEqual(['71.4', '64.9', '59.2', '55.1', '12', '12', 'NaN']);
    expect(await state()).toEqual([['perplexity', 'descending']]);
    await page.press('Tab');
    expect(await page.evaluate('document.activeElement.textContent')).toBe('edited tokens');
    await page.press('Enter');
    expect(await column(2)).toEqual(before);
    expect(await state()).toEqual([['edited tokens', 'ascending']]);
    await focusOn(page, '.sortable th:first-child .sort');
    await page.press('Enter');
    expect((await column(0))[0]).toBe('diff-in-means');
  });

  test('the values of a plot are read by keyboard, point by point, and by pointer', async () => {
    const page = await open();
    await focusOn(page, '.reader');
    await page.press('Home');
    const first =
      'strength, times the median residual norm -8 steered (layer 3) 0.2% random direction 0.0% foreign feature 0.0%';
    expect(await tip(page)).toBe(first);
    expect(await page.evaluate(`document.activeElement.ariaValueText`)).toBe(
      'strength, times the median residual norm -8: steered (layer 3) 0.2%, random direction 0.0%, foreign feature 0.0%',
    );
    for (const key of ['ArrowRight', 'ArrowRight', 'ArrowLeft']) await page.press(key);
    expect(await tip(page)).toMatch(/norm -4 steered \(layer 3\) 2\.0%/);
    await page.press('Escape');
    expect(await tip(page)).toBeNull();
    await page.press('End');
    expect(await tip(page)).toMatch(/norm 8 steered \(layer 3\) 97\.4%/);
    await page.press('Tab');
    expect(await tip(page)).toBeNull();
    const { x, y } = await page.evaluate<{ x: number; y: number }>(
      `(() => { const curve = document.querySelector('.markers path'); curve.scrollIntoView({ block: 'center' });
        const box = curve.getBoundingClientRect(); return { x: box.left, y: (box.top + box.bottom) / 2 }; })()`,
    );
    await page.point(x + 1, y);
    expect(await tip(page)).toMatch(/norm 0 steered \(layer 3\) 20\.2%/);
    await page.point(5, 5);
    expect(await tip(page)).toBeNull();
  });

  test('tokens and cells tell their values to the keyboard', async () => {
    const page = await open();
    await focusOn(page, '.sequences .tokens [tabindex="0"]');
    await page.press('ArrowRight');
    await page.press('ArrowRight');
    expect(await tip(page)).toBe('“北京” 9');
    expect(await page.evaluate(`document.querySelector('[role=status]').textContent`)).toBe('“北京”  9');
    await focusOn(page, '.matrix [tabindex="0"]');
    for (const key of ['ArrowDown', 'ArrowDown', 'End', 'ArrowLeft', 'ArrowRight', 'ArrowRight']) await page.press(key);
    expect(await tip(page)).toBe('L3/103 · L3/108 0.04');
    for (const key of ['Home', 'ArrowRight', 'ArrowRight', 'ArrowRight', 'ArrowRight', 'ArrowRight'])
      await page.press(key);
    expect(await tip(page)).toBe('L3/103 · L3/106 no value');
  });

  test('a legend sets its curve off in every plot below the heading, by keyboard', async () => {
    const page = await open();
    const chosen = () =>
      page.evaluate(
        `[...document.querySelectorAll('.emphasis .chosen')].map((one) => [one.closest('section').id, one.dataset.curve])`,
      );
    await focusOn(page, '.legend button');
    await page.press('ArrowRight');
    await page.press('Enter');
    expect(await chosen()).toEqual([
      ['s3-1', '1'],
      ['s3-2', '1'],
    ]);
    await page.press(' ');
    expect(await chosen()).toEqual([]);
  });
});
