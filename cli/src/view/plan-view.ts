import type { Plan } from '../gen/qscope/v1/run_pb.js';
import { wrap } from '../wrap.js';
import { bytes, spell } from './format.js';
import { type SampleOptions, sampleLines } from './sample-view.js';
import { table } from './table.js';

/** A plan as people read it: facts, the first rows, memory, time, disk, warnings. */
export function planLines(plan: Plan, options: SampleOptions): string[] {
  const { facts, memory, memoryBytes, availableBytes, fits, seconds, timeBasis, diskBytes, diskAvailableBytes } = plan;
  const width = Math.max(0, ...facts.map(({ name }) => name.length));
  const indent = ' '.repeat(width + 2);
  const lines = facts.flatMap(({ name, value }) =>
    wrap(value, Math.max(20, options.width - indent.length)).map((line, index) =>
      index === 0 ? `${name.padEnd(width)}  ${line}` : indent + line,
    ),
  );
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
    seconds < 0 ? `time    unknown: ${timeBasis}` : `time    about ${spell(seconds)} (${timeBasis})`,
    `disk    up to ${bytes(Number(diskBytes))} of ${bytes(Number(diskAvailableBytes))} free`,
  );
  if (plan.warnings.length > 0)
    lines.push('', ...plan.warnings.flatMap((text) => wrap(`warning: ${text}`, options.width)));
  return lines;
}
