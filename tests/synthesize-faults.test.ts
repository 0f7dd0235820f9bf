import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ChatServer, randomFrom } from './chat-server.js';
import { RealSandbox, SMALL } from './small.js';

// QSCOPE_KILLS=20 QSCOPE_SEED=7 npx vitest run tests/synthesize-faults.test.ts: more of them, at other moments.
const KILLS = Number(process.env.QSCOPE_KILLS ?? 3);
const random = randomFrom(Number(process.env.QSCOPE_SEED ?? 1));

const WRITE = `name: calm
seed: 1
model: embedded
compute: { threads: 1 }
synthesize:
  sae: latest
  layers: [4]
  seed_data: { source: embedded-heldout, where: language=en, limit: 3 }
  reference: { source: embedded-heldout, limit: 60 }
  natural: { source: embedded-heldout, skip: 60, limit: 40 }
  targets: { limit: 20 }
  context: 32
  attempts: 3
  styles: [{ name: urgency }]
  same_meaning: true
  risk: judged
  responses: writer
  writer: endpoint
  endpoint: { model: m, concurrency: 4, temperature: 0.8 }
`;
/** What a run leaves behind, byte for byte the same whatever was killed on the way. */
const EQUAL = ['synthetic.jsonl', 'rejected.jsonl', 'random.jsonl', 'targets.csv', 'coverage.csv', 'ledger.jsonl'];

describe('synthesize beside a server with faults, killed at random moments', () => {
  const box = new RealSandbox();
  const server = new ChatServer(random);
  let calm: string;
  let url: string;
  beforeAll(async () => {
    url = await server.start();
    expect((await box.run(['train-sae', box.experiment(SMALL), '--quiet'])).code).toBe(0);
    const { code, stderr } = await box.run(command('calm'));
    expect(code, stderr).toBe(0);
    calm = folderOf('calm');
    expect(lines(calm, 'synthetic.jsonl').length).toBeGreaterThan(10);
  });
  afterAll(() => {
    server.stop();
    box.remove();
  });

  it(`ends as if nothing had happened, after ${KILLS} kills`, { timeout: 120_000 * (KILLS + 2) }, async () => {
    server.faults = 0.35;
    server.slow = 20;
    let kills = 0;
    for (let run = 0; kills < KILLS; run += 1) {
      const name = `killed-${run}`;
      server.answered = [];
      let attempt = box.start(command(name));
      const before = kills;
      while (kills < KILLS && (await killedAtSomeMoment(name, attempt.ended))) {
        kills += 1;
        expect((await attempt.ended).code).toBe(1);
        attempt = box.start(['runs', 'resume', basename(folderOf(name))]);
      }
      const { code, stderr } = await attempt.ended;
      expect(code, stderr).toBe(0);
      compare(folderOf(name), kills - before);
    }
    expect(server.made.size).toBeGreaterThan(3);
  });

  function command(name: string): string[] {
    const settings = ['--set', `name=${name}`, '--set', `synthesize.endpoint.url=${url}`];
    return ['synthesize', box.experiment(WRITE, 'write.yaml'), ...settings, '--json'];
  }

  function folderOf(name: string): string {
    return box.runFolders().find((path) => basename(path).startsWith(`${name}-`)) as string;
  }

  /** Kills the run after some more requests, or after some time; false where it ended before. */
  async function killedAtSomeMoment(name: string, ended: Promise<unknown>): Promise<boolean> {
    let over = false;
    void ended.then(() => {
      over = true;
    });
    const requests = server.asked.length + 1 + Math.floor(random() * 40);
    // Now and then before the first request: while libraries are imported, or texts are read.
    const early = random() < 0.2;
    const record = () => join(folderOf(name) ?? '', 'process.json');
    while (!over && !existsSync(record())) await sleep(10);
    const pid = over ? 0 : JSON.parse(readFileSync(record(), 'utf8')).pid;
    while (!over && !early && server.asked.length < requests) await sleep(2);
    await sleep(random() * (early ? 4000 : 60));
    if (over) return false;
    // The record may still be that of the attempt before, whose process is gone.
    const { pid: now } = JSON.parse(readFileSync(record(), 'utf8'));
    try {
      process.kill(-(now ?? pid), 'SIGKILL');
    } catch {
      return killedAtSomeMoment(name, ended);
    }
    return true;
  }

  function compare(made: string, kills: number): void {
    for (const file of EQUAL) {
      expect(
        readFileSync(join(made, 'artifacts', file)).equals(readFileSync(join(calm, 'artifacts', file))),
        file,
      ).toBe(true);
    }
    // Answers come in the order in which a server gives them; the same ones, each once.
    const answers = lines(made, 'answers.jsonl');
    expect([...answers].sort()).toEqual([...lines(calm, 'answers.jsonl')].sort());
    expect(new Set(answers.map((line) => JSON.parse(line).key)).size).toBe(answers.length);
    // What was under way at a kill is asked again: as many questions as are asked at once, for each kill.
    expect(server.answered.length).toBeGreaterThanOrEqual(answers.length);
    expect(server.answered.length).toBeLessThanOrEqual(answers.length + 4 * kills);
    const [one, other] = [summary(made), summary(calm)];
    for (const found of [one, other]) {
      // How often and how well a server answered is told of each attempt: of them, this alone may differ.
      delete found.usage.requests_of_this_attempt;
      delete found.usage.faults_of_this_attempt;
      delete found.usage.of_them_from_before;
    }
    expect(one).toEqual(other);
  }
});

function lines(folder: string, name: string): string[] {
  return readFileSync(join(folder, 'artifacts', name), 'utf8')
    .trimEnd()
    .split('\n');
}

function summary(folder: string) {
  return JSON.parse(readFileSync(join(folder, 'artifacts/synthesis.json'), 'utf8'));
}
