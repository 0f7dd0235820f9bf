import type { ChalkInstance } from 'chalk';
import type { Ora } from 'ora';
import type { RunEvent } from '../gen/qscope/v1/run_event_pb.js';
import type { Run } from '../gen/qscope/v1/run_pb.js';
import { wrap } from '../wrap.js';
import { failureLines } from './failure.js';
import { listenForKeys } from './hotkeys.js';
import { layerTable } from './layer-table.js';
import { colours, columns, hasColour, printLine, printNote } from './output.js';
import { type Field, progressFields } from './progress-line.js';
import type { Reporter } from './reporter.js';
import { RunModel } from './run-model.js';
import { eventNote, resultLines } from './summary.js';

/** Columns taken by the spinner, its space, and the last one, where some terminals already wrap. */
const SPINNER_COLUMNS = 3;

export async function openTtyReporter(): Promise<Reporter> {
  const { default: ora } = await import('ora');
  const spinner = ora({
    stream: process.stderr,
    // ora's own handling of stdin turns Ctrl-C into a signal a second time.
    discardStdin: false,
    isEnabled: true,
    color: hasColour('stderr') ? 'cyan' : false,
  });
  return new TtyReporter(spinner, await colours('stderr'));
}

/** One line rewritten in place, with lines that stay above it. */
class TtyReporter implements Reporter {
  private readonly model = new RunModel();
  private stopListening = () => {};

  constructor(
    private readonly spinner: Ora,
    private readonly chalk: ChalkInstance,
  ) {}

  begin({ runId, folder }: Run): void {
    printNote(`Run ${this.chalk.bold(runId)} in ${folder}`);
    this.spinner.start('starting');
    this.stopListening = listenForKeys({ l: () => this.showLayers() });
    if (process.stdin.isTTY) this.note(this.chalk.dim('l shows the layers, Ctrl-C stops after a checkpoint'));
  }

  event(event: RunEvent): void {
    this.model.apply(event);
    const text = eventNote(event);
    if (text) {
      const lines = wrap(text, columns('stderr')).join('\n');
      this.note(text.startsWith('warning:') ? this.chalk.yellow(lines) : lines);
    }
    const fields = progressFields(this.model, columns('stderr') - SPINNER_COLUMNS);
    if (fields.length > 0) this.spinner.text = fields.map((field) => this.paint(field)).join('  ');
  }

  note(text: string): void {
    const { spinner } = this;
    if (spinner.isSpinning) spinner.clear();
    printNote(text);
    if (spinner.isSpinning) spinner.render();
  }

  end(run?: Run): void {
    this.stopListening();
    this.spinner.stop();
    if (!run) return;
    for (const line of resultLines(run, this.model, columns('stdout'))) printLine(line);
    const [sentence, ...rest] = failureLines(run);
    if (sentence) printNote(this.chalk.red(sentence));
    for (const line of rest) printNote(line);
  }

  private showLayers(): void {
    const lines = layerTable(this.model, columns('stderr'));
    this.note(lines.length > 0 ? `${lines.join('\n')}\n` : 'No layer has reported yet.');
  }

  private paint({ kind, text }: Field): string {
    if (kind === 'phase') return this.chalk.bold(text);
    if (kind === 'bar') return this.chalk.cyan(text);
    if (kind === 'rate' || kind === 'eta') return this.chalk.dim(text);
    return text;
  }
}
