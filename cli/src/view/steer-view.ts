import type { ChalkInstance } from 'chalk';
import { EndReason, type GenerateResponse, type RowEnded } from '../gen/qscope/v1/inference_pb.js';
import { wrap } from '../wrap.js';
import { decimals } from './format.js';
import { colours, columns, printJson, printNote, writeText } from './output.js';

/** What a row of the request is, for its heading. */
export interface SteerRow {
  arm: string;
  prompt: string;
  sample: number;
}

/** Shows the messages of one request. */
export interface SteerView {
  show(message: GenerateResponse): void;
  /** Called once, also after a failure: ends the line that was being written. */
  end(): void;
}

export async function chooseSteerView(given: { json?: boolean | undefined; rows: SteerRow[] }): Promise<SteerView> {
  if (given.json) {
    const { toJson } = await import('@bufbuild/protobuf');
    const { GenerateResponseSchema } = await import('../gen/qscope/v1/inference_pb.js');
    return { show: (message) => printJson(toJson(GenerateResponseSchema, message)), end: () => {} };
  }
  return new TextView(given.rows, await colours('stderr'));
}

const REASONS: Readonly<Record<EndReason, string>> = {
  [EndReason.UNSPECIFIED]: '',
  [EndReason.END_TOKEN]: 'ended by itself',
  [EndReason.STOP_TEXT]: 'stop text',
  [EndReason.LENGTH]: 'length reached',
  [EndReason.ABORTED]: 'aborted by a feature',
};

/**
 * Text on stdout, everything about it on stderr. All rows grow at the same time and a terminal has one cursor: the first
 * row that goes on is shown as it grows, the others wait.
 */
class TextView implements SteerView {
  private readonly waiting: string[];
  private readonly ends: (RowEnded | undefined)[];
  private live = -1;
  private atLineStart = true;

  constructor(
    private readonly rows: SteerRow[],
    private readonly paint: ChalkInstance,
  ) {
    this.waiting = rows.map(() => '');
    this.ends = rows.map(() => undefined);
  }

  show({ event }: GenerateResponse): void {
    switch (event.case) {
      case 'notice':
        this.note(event.value.warning ? this.paint.yellow(event.value.text) : this.paint.dim(event.value.text));
        return;
      case 'started':
        this.note(this.paint.dim(event.value.facts.join(', ')));
        return;
      case 'step':
        for (const { row, text } of event.value.rows) this.waiting[row] += text;
        break;
      case 'rowEnded':
        this.ends[event.value.row] = event.value;
        break;
      case 'finished': {
        const { tokens, seconds, firstTokenSeconds } = event.value;
        const first = `first token after ${decimals(firstTokenSeconds, 2)} s`;
        const rate = seconds > 0 ? `, ${decimals(Number(tokens) / seconds, 0)} tokens/s` : '';
        this.note(this.paint.dim(`${tokens} tokens, ${first}${rate}`));
        return;
      }
    }
    this.advance();
  }

  end(): void {
    this.breakLine();
  }

  private advance(): void {
    if (this.live < 0) this.open(0);
    while (this.live < this.rows.length) {
      this.write(this.waiting[this.live] ?? '');
      this.waiting[this.live] = '';
      const ended = this.ends[this.live];
      if (!ended) return;
      this.close(ended);
      this.open(this.live + 1);
    }
  }

  private open(index: number): void {
    this.live = index;
    const row = this.rows[index];
    if (!row) return;
    const several = new Set(this.rows.map(({ prompt }) => prompt)).size > 1;
    const sample = this.rows.some(({ sample: other }) => other > 0) ? ` #${row.sample + 1}` : '';
    const prompt = several || sample ? ` ${JSON.stringify(row.prompt)}` : '';
    this.note(this.paint.bold(`${row.arm}${sample}${prompt}`));
  }

  private close({ tokens, reason, proof }: RowEnded): void {
    this.note(this.paint.dim(`[${tokens} tokens, ${REASONS[reason]}]`));
    for (const layer of proof?.layers ?? []) {
      const { promptPositions, generatedPositions, skippedPositions, meanRelativeChange, maxRelativeChange } = layer;
      const skipped = skippedPositions > 0n ? `, ${skippedPositions} left alone by a condition` : '';
      const changed = `${promptPositions} prompt and ${generatedPositions} generated tokens changed${skipped}`;
      const size = `by ${decimals(meanRelativeChange, 3)} of the residual's length (at most ${decimals(maxRelativeChange, 3)})`;
      this.note(this.paint.dim(`layer ${layer.layer}: ${changed}, ${size}`));
    }
  }

  private write(text: string): void {
    if (text === '') return;
    writeText('stdout', text);
    this.atLineStart = text.endsWith('\n');
  }

  private note(text: string): void {
    this.breakLine();
    for (const line of wrap(text, columns('stderr'))) printNote(line);
  }

  private breakLine(): void {
    if (!this.atLineStart) writeText('stdout', '\n');
    this.atLineStart = true;
  }
}
