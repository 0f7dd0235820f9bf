import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Result } from '../cli/test/support/cli.js';
import { RealSandbox, SMALL } from './small.js';

const WRITE = `name: write
seed: 1
model: embedded
compute: { threads: 1 }
synthesize:
  sae: latest
  layers: [4]
  seed_data: { source: seed.jsonl, prompt: "{question}" }
  reference: { source: embedded-heldout, limit: 60 }
  natural: { source: embedded-heldout, skip: 60, limit: 60 }
  targets: { limit: 24 }
  context: 32
  per_feature: 1
  attempts: 3
  responses: template
  styles: [{ name: urgency }]
`;

interface Row {
  messages: { role: string; content: string }[];
  metadata: { target: string; slot: string; style: string; activation: number; verified: boolean };
}

function jsonl<T>(folder: string, name: string): T[] {
  return readFileSync(join(folder, 'artifacts', name), 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);
}

function summaryOf(folder: string) {
  return JSON.parse(readFileSync(join(folder, 'artifacts/synthesis.json'), 'utf8'));
}

function runNamed(box: RealSandbox, name: string): string {
  return box.runFolders().find((path) => basename(path).startsWith(`${name}-`)) as string;
}

/** An OpenAI-compatible server that copies an excerpt of the question, and has every fault a server can have. */
class ChatServer {
  asked: string[] = [];
  faults = false;
  /** Milliseconds before each answer. */
  slow = 0;
  private server: Server;

  constructor() {
    this.server = createServer((request, response) => void this.answer(request, response));
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/v1`;
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    const user = body.messages.at(-1).content as string;
    this.asked.push(user);
    const count = this.asked.length;
    if (this.slow) await sleep(this.slow);
    if (this.faults) {
      if (count % 11 === 1) {
        response.writeHead(429, { 'retry-after': '0' }).end('later');
        return;
      }
      if (count % 11 === 2) {
        response.writeHead(500).end('broken');
        return;
      }
      if (count % 11 === 3) {
        request.socket.destroy();
        return;
      }
      if (count % 11 === 4) {
        response.writeHead(200).end('<html>');
        return;
      }
    }
    const refuses = this.faults && count % 11 === 5;
    const text = refuses ? 'I cannot help with that.' : said(user, count);
    const completion = {
      choices: [{ message: { role: 'assistant', content: text } }],
      usage: { prompt_tokens: 10, completion_tokens: 5 },
    };
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(completion));
  }
}

/** A script in the place of a language model: one of the excerpts it is shown, with a number of its own. */
function said(user: string, count: number): string {
  const rewritten = /^Prompt: (.*)$/m.exec(user);
  if (rewritten) return `${rewritten[1]} Now!`;
  const excerpts = [...user.matchAll(/^\d+\. (.*)$/gm)].map((match) => match[1] as string);
  return `${(excerpts[count % excerpts.length] ?? 'nothing').replaceAll('<<', '').replaceAll('>>', '')} (${count})`;
}

describe('synthesize on the embedded model', () => {
  const box = new RealSandbox();
  const server = new ChatServer();
  let url: string;
  let written: Result;
  let folder: string;
  beforeAll(async () => {
    url = await server.start();
    const seeds = ['How do I open a file?', 'Wie heißt du?'].map((question) => JSON.stringify({ question }));
    writeFileSync(join(box.folder, 'seed.jsonl'), `${seeds.join('\n')}\nno row\n{"answer": 1}\n`);
    expect((await box.run(['train-sae', box.experiment(SMALL), '--quiet'])).code).toBe(0);
    written = await box.run(['synthesize', box.experiment(WRITE, 'write.yaml')]);
    folder = runNamed(box, 'write');
  });
  afterAll(() => {
    server.stop();
    box.remove();
  });

  it('ends well, names what was left out, and shows a table that fits', () => {
    expect(written.code, written.stderr).toBe(0);
    expect(written.stderr).toContain('seed_data: 2 texts, {question}');
    expect(written.stderr).toContain('seed_data: 2 rows left out');
    expect(written.stderr).toMatch(/coverage +texts +tokens +covered +spread +needed/);
    const table = written.stderr.slice(written.stderr.indexOf('wanted features')).split('\n');
    for (const line of table.slice(0, table.indexOf('done'))) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('writes rows in chat format that name their feature, and nothing twice', () => {
    const rows = jsonl<Row>(folder, 'synthetic.jsonl');
    expect(rows.length).toBeGreaterThan(5);
    for (const { messages, metadata } of rows) {
      expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant']);
      expect(metadata.target).toMatch(/^4\/\d+$/);
      expect(metadata.activation).toBeGreaterThan(0);
      expect(metadata.verified).toBe(true);
    }
    const texts = rows.map(({ messages }) => messages[0]?.content);
    expect(new Set(texts).size).toBe(texts.length);
    expect(new Set(rows.map(({ metadata }) => metadata.style))).toEqual(new Set(['vanilla', 'urgency']));
    const rejected = jsonl<{ reason: string }>(folder, 'rejected.jsonl');
    expect(rejected.every(({ reason }) => reason !== '')).toBe(true);
  });

  it('covers more than the seed data, and no less than it says text by text', () => {
    const { coverage, targets, missing, rows } = summaryOf(folder);
    expect(coverage.seed).toBeCloseTo((targets - missing) / targets, 10);
    expect(coverage.targeted).toBeGreaterThan(coverage.seed);
    expect(coverage.random.texts).toBe(rows);
    const lines = readFileSync(join(folder, 'artifacts/coverage.csv'), 'utf8').trim().split('\n').slice(1);
    const curve = lines.map((line) => Number(line.split(',')[1]));
    expect(curve[0]).toBe(coverage.seed);
    expect(curve.at(-1)).toBe(coverage.targeted);
    for (let place = 1; place < curve.length; place += 1) {
      expect(curve[place]).toBeGreaterThanOrEqual(curve[place - 1] as number);
    }
  });

  it('lists the rows it left out by line', () => {
    const lines = readFileSync(join(folder, 'artifacts/faults.csv'), 'utf8').trim().split('\n');
    expect(lines[1]).toContain('seed.jsonl:3,not JSON');
    expect(lines[2]).toContain('seed.jsonl:4');
  });

  it('has a report with the curve', async () => {
    const page = join(box.folder, 'page.html');
    expect((await box.run(['report', folder, '-o', page])).code).toBe(0);
    const html = readFileSync(page, 'utf8');
    for (const words of ['Coverage', 'untargeted', 'natural', 'Missing features']) expect(html).toContain(words);
  });

  it('writes by a server with faults: they are counted, nothing is lost or written twice', async () => {
    server.asked = [];
    server.faults = true;
    const { code, stderr } = await box.run(
      ['synthesize', 'write.yaml', '--set', 'name=faulty', ...endpoint(url), '--set', 'synthesize.targets.limit=12'],
      {},
    );
    server.faults = false;
    expect(code, stderr).toBe(0);
    const made = runNamed(box, 'faulty');
    const { usage, rejected, rows } = summaryOf(made);
    expect(Object.keys(usage.faults_of_this_attempt).sort()).toEqual([
      'connection lost',
      'garbage',
      'status 429',
      'status 500',
    ]);
    expect(rejected['writer refused']).toBeGreaterThan(0);
    expect(usage.requests_of_this_attempt).toBe(server.asked.length);
    const texts = jsonl<Row>(made, 'synthetic.jsonl').map(({ messages }) => messages[0]?.content);
    expect(texts.length).toBe(rows);
    expect(new Set(texts).size).toBe(rows);
    expect(stderr).toMatch(/writer: \d+ answers, \d+ tokens read, \d+ written, cost 0\.\d\d/);
    expect(stderr).toMatch(/server: .*status 429 \d+ x/);
  });

  it('goes on after kill -9: no answer is asked for twice, no verdict lost', async () => {
    server.asked = [];
    server.slow = 60;
    const run = box.start(['synthesize', 'write.yaml', '--set', 'name=killed', ...endpoint(url), '--json']);
    while (server.asked.length < 8) await sleep(20);
    const made = runNamed(box, 'killed');
    while (!existsSync(join(made, 'artifacts/ledger.jsonl'))) await sleep(20);
    const { pid } = JSON.parse(readFileSync(join(made, 'process.json'), 'utf8'));
    process.kill(-pid, 'SIGKILL');
    expect((await run.ended).code).toBe(1);
    const before = readFileSync(join(made, 'artifacts/ledger.jsonl'), 'utf8');
    const answered = readFileSync(join(made, 'artifacts/answers.jsonl'), 'utf8').split('\n').length - 1;
    expect(existsSync(join(made, 'artifacts/synthetic.jsonl'))).toBe(false);
    server.slow = 0;
    const asked = server.asked.length;

    const { code, stderr } = await box.run(['runs', 'resume', basename(made)]);
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/verdicts are kept from before/);
    // Finished verdicts stand as they were, line by line; the one cut short may have lost its end.
    const whole = before.slice(0, before.lastIndexOf('\n') + 1);
    const ledger = readFileSync(join(made, 'artifacts/ledger.jsonl'), 'utf8');
    expect(ledger.startsWith(whole)).toBe(true);
    for (const name of ['ledger.jsonl', 'answers.jsonl']) {
      const keys = jsonl<{ key: string }>(made, name).map(({ key }) => key);
      expect(new Set(keys).size).toBe(keys.length);
    }
    // What was under way when the run was killed, four questions at most, is asked again; nothing else is.
    const { usage } = summaryOf(made);
    expect(usage.of_them_from_before).toBeGreaterThanOrEqual(answered);
    const answers = jsonl(made, 'answers.jsonl').length;
    expect(server.asked.length - asked).toBe(answers - answered);
    expect(server.asked.length).toBeLessThanOrEqual(answers + 4);
    const texts = jsonl<Row>(made, 'synthetic.jsonl').map(({ messages }) => messages[0]?.content);
    expect(texts.length).toBeGreaterThan(0);
    expect(new Set(texts).size).toBe(texts.length);
  });

  it('writes the questions alone where nobody writes', async () => {
    const { code } = await box.run([
      'synthesize',
      'write.yaml',
      '--set',
      'name=asks',
      '--set',
      'synthesize.writer=none',
    ]);
    expect(code).toBe(0);
    const rows = jsonl<Row>(runNamed(box, 'asks'), 'prompts.jsonl');
    expect(rows.length).toBeGreaterThan(5);
    expect(rows[0]?.messages.map(({ role }) => role)).toEqual(['system', 'user']);
  });

  it.each([
    ['synthesize.bad_rows=refuse', 'seed.jsonl:3: not JSON'],
    ['synthesize.seed_data={source: none.jsonl}', 'no text file found there'],
    ['synthesize.reference.source=""', 'nothing says which features are wanted'],
    ['synthesize.targets={features: [9/1]}', 'layer'],
    ['synthesize.targets={features: [4/99999]}', 'There is no feature 4/99999'],
    ['synthesize.writer=endpoint', 'writer: endpoint needs endpoint.url and endpoint.model'],
    ['synthesize.risk=judged', 'need writer: endpoint, which judges'],
    ['synthesize.responses=writer', 'responses: writer needs writer: endpoint'],
    ['synthesize.templates=["{colour}"]', 'which no feature has'],
    ['synthesize.styles=[{name: unheard_of}]', "There is no style called 'unheard_of'"],
  ])('%s: one sentence and the place', async (setting, sentence) => {
    const { code, stderr } = await box.run(['synthesize', 'write.yaml', '--set', setting]);
    expect(code).toBe(65);
    expect(stderr).toContain(sentence);
    expect(stderr).not.toContain('Traceback');
  });
});

function endpoint(url: string): string[] {
  const settings = {
    writer: 'endpoint',
    endpoint: `{url: "${url}", model: m, concurrency: 4, temperature: 0.8, input_price: 100, output_price: 1000}`,
    responses: 'none',
  };
  return Object.entries(settings).flatMap(([name, value]) => ['--set', `synthesize.${name}=${value}`]);
}
