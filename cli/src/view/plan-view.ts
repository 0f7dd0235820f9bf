import type { Plan } from '../gen/qscope/v1/run_pb.js';
import { wrap } from '../wrap.js';
import { bytes, spell } from './format.js';
import { type SampleOptions, sampleLines } from './sample-view.js';
import { table } from './table.js';

/** A plan as people read it: facts, the first rows, memory, time, disk, warnings. */
export function planLines(plan: Plan, options: SampleOptions): string[] {
  const { facts, memory, memoryBytes, availableBytes, fits, seconds, timeBasis, diskBytes, diskAvailableBytes } = plan;
  const width = Math.max(0, ...facts.map(({ name }) => name.length));
  const lines = facts.flatMap(({ name, value }) => named(name, value, width + 2, options.width));
  if (plan.samples.length > 0) lines.push('', ...sampleLines(plan.samples, options));
  const verdict = fits ? 'fits' : 'DOES NOT FIT';
  lines.push(
    '',
    ...table(
      [{ heading: 'memory' }, { heading: '', align: 'right' }],
      [
        ...memory.map((item) => [item.name, bytes(Number(item.bytes))]),
        ['in all', bytes(Number(memoryBytes))],
        ['there are', `${bytes(Number(availableBytes))}`],
      ],
    ),
    verdict,
    '',
    ...named(
      'time',
      seconds < 0 ? `unknown: ${timeBasis}` : `about ${spell(seconds)} (${timeBasis})`,
      8,
      options.width,
    ),
    `disk    up to ${bytes(Number(diskBytes))} of ${bytes(Number(diskAvailableBytes))} free`,
  );
  if (plan.warnings.length > 0)
    lines.push('', ...plan.warnings.flatMap((text) => wrap(`warning: ${text}`, options.width)));
  return lines;
}

/** A name and its value from a column on, in as many lines as it takes. */
function named(name: string, value: string, column: number, width: number): string[] {
  const [first = '', ...others] = wrap(value, Math.max(20, width - column));
  return [name.padEnd(column) + first, ...others.map((line) => ' '.repeat(column) + line)];
}
