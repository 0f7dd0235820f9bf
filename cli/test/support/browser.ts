import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** Names that a browser of this engine goes by. */
const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'];

/** A Chromium on this machine: the variable CHROMIUM, else one on the PATH. */
export function findBrowser(): string | undefined {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const folders = (process.env.PATH ?? '').split(delimiter);
  return NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find(existsSync);
}

/** A machine at work on other things may take half a minute to start a browser. */
const ANSWER_MS = 45_000;
const CLOSE_MS = 5_000;

interface Answer {
  id?: number;
  method?: string;
  sessionId?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
}

type Happening = (method: string, params: Record<string, unknown>) => void;

/**
 * A headless Chromium, spoken to in the DevTools protocol over a pipe: no port, no library, and every request and console
 * line of a page can be seen.
 */
export class Browser {
  private readonly waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  private readonly listeners = new Map<string, Happening>();
  private counter = 0;

  private constructor(
    private readonly child: ChildProcess,
    private readonly folder: string,
  ) {
    let rest = '';
    (child.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop() as string;
      for (const message of messages) this.receive(JSON.parse(message));
    });
    child.on('exit', (code) => {
      for (const { reject } of this.waiting.values()) reject(new Error(`the browser ended with code ${code}`));
    });
  }

  static async start(path: string): Promise<Browser> {
    const folder = mkdtempSync(join(tmpdir(), 'qs-browser-'));
    const args = [
      '--headless',
      '--remote-debugging-pipe',
      `--user-data-dir=${folder}`,
      '--no-first-run',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--hide-scrollbars',
      // The browser's own errands would be mistaken for requests of the page.
      '--disable-background-networking',
      '--disable-component-update',
      // Its sandbox refuses to run as root, as which containers mostly run.
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
    ];
    const child = spawn(path, args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    await Promise.race([
      once(child, 'spawn'),
      once(child, 'error').then(([error]) => {
        throw error;
      }),
    ]);
    const browser = new Browser(child, folder);
    try {
      await browser.send('Browser.getVersion');
    } catch (error) {
      await browser.close();
      throw error;
    }
    return browser;
  }

  send<T = Record<string, unknown>>(method: string, params: object = {}, sessionId?: string): Promise<T> {
    const id = ++this.counter;
    (this.child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise<T>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no answer to ${method} in ${ANSWER_MS / 1000} s`)), ANSWER_MS);
      this.waiting.set(id, {
        resolve: (value) => {
          clearTimeout(late);
          resolve(value);
        },
        reject: (error) => {
          clearTimeout(late);
          reject(error);
        },
      });
    });
  }

  /** Opens a page of a width in pixels and waits until it is loaded. */
  async open(url: string, { width = 1280, height = 900, dark = false } = {}): Promise<Page> {
    const { targetId } = await this.send<{ targetId: string }>('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.send<{ sessionId: string }>('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page((method, params) => this.send(method, params, sessionId));
    this.listeners.set(sessionId, (method, params) => page.happened(method, params));
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await page.send(`${domain}.enable`);
    const mobile = width < 600;
    await page.send('Emulation.setDeviceMetricsOverride', { width, height, mobile, deviceScaleFactor: 1 });
    await page.send('Emulation.setEmulatedMedia', {
      features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }],
    });
    await page.load(url);
    return page;
  }

  async close(): Promise<void> {
    const ended = once(this.child, 'exit');
    const late = setTimeout(() => this.child.kill('SIGKILL'), CLOSE_MS);
    this.send('Browser.close').catch(() => {});
    await ended;
    clearTimeout(late);
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  private receive({ id, method, sessionId, params, result, error }: Answer): void {
    if (id !== undefined) {
      const asked = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) asked?.reject(new Error(error.message));
      else asked?.resolve((result ?? {}) as never);
    } else if (method && sessionId) {
      this.listeners.get(sessionId)?.(method, params ?? {});
    }
  }
}

/** Keys by name: code and what they type. */
const KEYS: Readonly<Record<string, { code: number; text?: string }>> = {
  Tab: { code: 9 },
  Enter: { code: 13, text: '\r' },
  Escape: { code: 27 },
  ' ': { code: 32, text: ' ' },
  End: { code: 35 },
  Home: { code: 36 },
  ArrowLeft: { code: 37 },
  ArrowUp: { code: 38 },
  ArrowRight: { code: 39 },
  ArrowDown: { code: 40 },
};

export class Page {
  /** Console lines, uncaught errors and what the browser itself complains of. */
  readonly complaints: string[] = [];
  /** Addresses of everything the page asked for, the page itself first. */
  readonly requests: string[] = [];
  private loaded = () => {};

  constructor(readonly send: <T = Record<string, unknown>>(method: string, params?: object) => Promise<T>) {}

  async load(url: string): Promise<void> {
    const done = new Promise<void>((resolve) => {
      this.loaded = resolve;
    });
    await this.send('Page.navigate', { url });
    await done;
  }

  happened(method: string, params: Record<string, unknown>): void {
    if (method === 'Page.loadEventFired') this.loaded();
    if (method === 'Network.requestWillBeSent') this.requests.push((params.request as { url: string }).url);
    if (['Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded'].includes(method)) {
      this.complaints.push(JSON.stringify(params));
    }
  }

  /** The value of an expression in the page; it must be JSON. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send<{
      result: { value: T };
      exceptionDetails?: { exception?: { description?: string }; text: string };
    }>('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async press(key: string, { shift = false } = {}): Promise<void> {
    const { code, text } = KEYS[key] as { code: number; text?: string };
    const event = { key, code: key === ' ' ? 'Space' : key, windowsVirtualKeyCode: code, modifiers: shift ? 8 : 0 };
    await this.send('Input.dispatchKeyEvent', { type: text ? 'keyDown' : 'rawKeyDown', ...event, text });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  }

  async point(x: number, y: number): Promise<void> {
    await this.send('Input.dispatchMouseEvent', { type: 'mouseMoved', x, y });
  }

  /** A picture of the whole page, or of a part of it. */
  async screenshot(file: string, clip?: { x: number; y: number; width: number; height: number }): Promise<void> {
    const { data } = await this.send<{ data: string }>('Page.captureScreenshot', {
      captureBeyondViewport: true,
      ...(clip
        ? { clip: { ...clip, scale: 1 } }
        : {
            clip: {
              x: 0,
              y: 0,
              ...(await this.evaluate<{ width: number; height: number }>(
                '({ width: innerWidth, height: document.documentElement.scrollHeight })',
              )),
              scale: 1,
            },
          }),
    });
    writeFileSync(file, Buffer.from(data, 'base64'));
  }
}
