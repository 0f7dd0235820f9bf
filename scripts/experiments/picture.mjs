// A PNG of one section of a run's page, taken with a headless Chromium (the variable CHROMIUM, else one on the PATH).
//
//   node scripts/experiments/picture.mjs RUN_FOLDER "Heading of the section" picture.png [--width 1100] [--height 1000]
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './lab.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { width: { type: 'string', default: '1100' }, height: { type: 'string', default: '1000' } },
});
const [run, heading, picture] = positionals;
if (!run || !heading || !picture) throw new Error('usage: picture.mjs RUN_FOLDER HEADING FILE.png');
const names = ['chromium', 'chromium-browser', 'google-chrome', 'chrome'];
const places = (process.env.PATH ?? '').split(path.delimiter).flatMap((at) => names.map((name) => path.join(at, name)));
const chromium = process.env.CHROMIUM ?? places.find((place) => existsSync(place));
if (!chromium) throw new Error('there is no Chromium: set CHROMIUM, or put one on the PATH');

const folder = mkdtempSync(path.join(tmpdir(), 'qscope-picture-'));
try {
  const page = path.join(folder, 'page.html');
  execFileSync('node', [path.join(root, 'cli/bin/qscope.js'), 'report', path.resolve(run), '-o', page], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const html = readFileSync(page, 'utf8');
  // Everything but the section is hidden by a style of its own: the page's policy admits its own style only, so it goes.
  const id = html.match(new RegExp(`<section id="([^"]+)"[^>]*><h\\d id="[^"]+">${heading}`))?.[1];
  if (!id) throw new Error(`the page has no section "${heading}"`);
  const style = `<style>body * { visibility: hidden } #${id}, #${id} * { visibility: visible } #${id} { position: absolute; inset: 0 1rem auto 1rem; margin: 1rem 0 } #${id} details { display: none }</style>`;
  writeFileSync(
    page,
    html.replace(/<meta http-equiv="Content-Security-Policy"[^>]*>/, '').replace('</head>', `${style}</head>`),
  );
  const size = `--window-size=${values.width},${values.height}`;
  const options = [
    '--headless',
    '--no-sandbox',
    '--hide-scrollbars',
    '--disable-gpu',
    '--force-device-scale-factor=1',
    size,
  ];
  execFileSync(chromium, [...options, `--screenshot=${path.resolve(picture)}`, `file://${page}`], { stdio: 'ignore' });
} finally {
  rmSync(folder, { recursive: true });
}
