import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** What a server can do wrong instead of answering. */
const FAULTS: Record<string, (response: ServerResponse) => void | Promise<void>> = {
  'too many requests': (response) => void response.writeHead(429, { 'retry-after': '0' }).end('later'),
  'an error of its own': (response) => void response.writeHead(500).end('broken'),
  'a cut connection': (response) => void response.socket?.destroy(),
  garbage: (response) => void response.writeHead(200).end('<html>'),
  'JSON of another kind': (response) => void response.writeHead(200).end('{"hello": 1}'),
  'no choices': (response) => void response.writeHead(200).end('{"choices": []}'),
  'a chunk cut through': async (response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.write('{"choices": [{"message": {"content": "half a');
    await sleep(10);
    response.socket?.destroy();
  },
};
export const FAULT_NAMES = Object.keys(FAULTS);
/** Faults in a row for one question, at most: the client gives a question up after five. */
const IN_A_ROW = 3;

/**
 * An OpenAI-compatible server that copies an excerpt of the question, and has every fault a server can have.
 *
 * What it says is a function of the question alone, so that two runs that ask the same are told the same.
 */
export class ChatServer {
  /** Every question, as often as it was asked. */
  asked: string[] = [];
  /** Every question that was answered well, as often as it was. */
  answered: string[] = [];
  /** Faults so far, by name. */
  made = new Map<string, number>();
  /** Share of the requests that end in a fault. */
  faults = 0;
  /** Milliseconds before each answer, twice that at most. */
  slow = 0;
  /** What every answer waits for. */
  gate: Promise<void> = Promise.resolve();
  private readonly inARow = new Map<string, number>();
  private readonly server: Server;

  constructor(private readonly random: () => number = Math.random) {
    this.server = createServer((request, response) => {
      // A client that was killed is no fault of the server's.
      this.answer(request, response).catch(() => response.socket?.destroy());
    });
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
    const [system, user] = body.messages.map(({ content }: { content: string }) => content) as [string, string];
    const question = `${system}\n${user}`;
    this.asked.push(user);
    await this.gate;
    if (this.slow) await sleep(this.slow * (1 + this.random()));
    const before = this.inARow.get(question) ?? 0;
    if (this.random() < this.faults && before < IN_A_ROW) {
      this.inARow.set(question, before + 1);
      const name = FAULT_NAMES[Math.floor(this.random() * FAULT_NAMES.length)] as string;
      this.made.set(name, (this.made.get(name) ?? 0) + 1);
      await FAULTS[name]?.(response);
      return;
    }
    this.inARow.delete(question);
    this.answered.push(user);
    const completion = {
      choices: [{ message: { role: 'assistant', content: said(system, user) }, finish_reason: 'stop' }],
      usage: { prompt_tokens: 10, completion_tokens: 5 },
    };
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(completion));
  }
}

/** A script in the place of a language model: one of the excerpts it is shown, verdicts by chance, now and then a refusal. */
function said(system: string, user: string): string {
  let hash = 0;
  for (const character of user) hash = (hash * 31 + (character.codePointAt(0) as number)) >>> 0;
  if (system.includes('harmful or benign')) return hash % 3 === 0 ? 'Harmful.' : 'benign';
  if (system.includes('yes or no')) return hash % 5 === 0 ? 'No, it does not.' : 'Yes';
  if (system.includes('careful assistant')) return 'I can’t help with that. A doctor can.';
  if (system.includes('helpful assistant')) return hash % 4 === 0 ? 'I am sorry.' : 'Gladly.';
  const rewritten = user.split('\n</prompt>')[0]?.split('<prompt>\n')[1];
  if (rewritten) return `${rewritten} Now!`;
  if (hash % 7 === 0) return 'I cannot help with that.';
  const excerpts = [...user.matchAll(/^\d+\. (.*)$/gm)].map((match) => match[1] as string);
  const chosen = excerpts[hash % excerpts.length] ?? 'nothing';
  return `${chosen.replaceAll('<<', '').replaceAll('>>', '')} (${hash % 1000})`;
}

/** Numbers between 0 and 1 from a seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
