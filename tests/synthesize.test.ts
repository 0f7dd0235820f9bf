import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Result } from '../cli/test/support/cli.js';
import { ChatServer, FAULT_NAMES, randomFrom } from './chat-server.js';
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

describe('synthesize on the embedded model', () => {
  const box = new RealSandbox();
  const server = new ChatServer(randomFrom(1));
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
    server.answered = [];
    server.faults = 0.5;
    const { code, stderr } = await box.run(
      ['synthesize', 'write.yaml', '--set', 'name=faulty', ...endpoint(url), '--set', 'synthesize.targets.limit=12'],
      {},
    );
    server.faults = 0;
    expect(code, stderr).toBe(0);
    const made = runNamed(box, 'faulty');
    const { usage, rejected, rows } = summaryOf(made);
    expect(Object.keys(usage.faults_of_this_attempt).sort()).toEqual([
      'connection lost',
      'garbage',
      'status 429',
      'status 500',
    ]);
    expect([...server.made.keys()].sort()).toEqual([...FAULT_NAMES].sort());
    expect(rejected['writer refused']).toBeGreaterThan(0);
    expect(usage.requests_of_this_attempt).toBe(server.asked.length);
    // Every answer that came whole is kept once, and so is what it was paid.
    expect(usage.answers).toBe(server.answered.length);
    expect(jsonl(made, 'answers.jsonl').length).toBe(server.answered.length);
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

  it('ends in one sentence when the disk is full, and goes on once there is room', async () => {
    const settings = ['--set', 'name=full', '--set', 'synthesize.per_feature=4', '--json'];
    const full = await box.start(['synthesize', 'write.yaml', ...settings], {}, ['prlimit', '--fsize=40000']).ended;
    expect(full.code, full.stderr).toBe(1);
    expect(full.stdout + full.stderr).toContain('The disk of the run folder is full, or a limit');
    expect(full.stdout + full.stderr).not.toContain('Traceback');
    const made = runNamed(box, 'full');
    expect(existsSync(join(made, 'artifacts/synthetic.jsonl'))).toBe(false);
    const { code, stderr } = await box.run(['runs', 'resume', basename(made)]);
    expect(code, stderr).toBe(0);
    const other = await box.run(['synthesize', 'write.yaml', ...settings, '--set', 'name=room']);
    expect(other.code).toBe(0);
    for (const name of ['synthetic.jsonl', 'rejected.jsonl', 'ledger.jsonl', 'coverage.csv']) {
      const [one, two] = [made, runNamed(box, 'room')].map((at) => readFileSync(join(at, 'artifacts', name), 'utf8'));
      expect(one, name).toBe(two);
    }
  });

  it('stops at Ctrl-C with what it has, is not started twice at once, and ends like a run that was left alone', async () => {
    server.slow = 40;
    server.asked = [];
    const attempt = box.start(['synthesize', 'write.yaml', '--set', 'name=stopped', ...endpoint(url), '--json']);
    while (server.asked.length < 9) await sleep(2);
    // Now it waits for answers, however long what follows takes.
    let open = () => {};
    server.gate = new Promise((resolve) => {
      open = resolve;
    });
    const made = runNamed(box, 'stopped');
    const twice = await box.run(['runs', 'resume', basename(made)]);
    expect(twice.code).not.toBe(0);
    expect(twice.stderr).toContain(basename(made));
    expect(twice.stderr).not.toContain('Traceback');
    attempt.child.kill('SIGINT');
    // The stop is heard of between questions, of which there are dozens left.
    server.slow = 1000;
    open();
    const { code, stdout, stderr } = await attempt.ended;
    expect([75, 130], stdout + stderr).toContain(code);
    expect(stdout + stderr).not.toContain('Traceback');
    const answered = jsonl(made, 'answers.jsonl').length;
    expect(answered).toBeGreaterThan(0);
    server.slow = 0;
    expect((await box.run(['runs', 'resume', basename(made)])).code).toBe(0);
    const calm = await box.run(['synthesize', 'write.yaml', '--set', 'name=alone', ...endpoint(url)]);
    expect(calm.code).toBe(0);
    for (const name of ['synthetic.jsonl', 'rejected.jsonl', 'ledger.jsonl', 'coverage.csv']) {
      const [one, two] = [made, runNamed(box, 'alone')].map((at) => readFileSync(join(at, 'artifacts', name), 'utf8'));
      expect(one, name).toBe(two);
    }
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

  // More of them, recipe by recipe: backend-py/tests/recipes/test_synthesize.py.
  it.each([
    ['synthesize.bad_rows=refuse', 'seed.jsonl:3: not JSON'],
    ['synthesize.reference.source=""', 'nothing says which features are wanted'],
    ['synthesize.targets={features: [4/99999]}', 'There is no feature 4/99999'],
    ['synthesize.writer=endpoint', 'writer: endpoint needs endpoint.url and endpoint.model'],
    ['synthesize.risk=judged', 'need writer: endpoint, which judges'],
    ['synthesize.responses=writer', 'responses: writer needs writer: endpoint'],
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
