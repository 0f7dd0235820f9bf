import type { Plan } from '../gen/qscope/v1/run_pb.js';
import { bytes, spell } from './format.js';
import { table } from './table.js';

/** A plan as people read it: facts, memory, time, disk, warnings. */
export function planLines(plan: Plan): string[] {
  const { facts, memory, memoryBytes, availableBytes, fits, seconds, timeBasis, diskBytes, diskAvailableBytes } = plan;
  const width = Math.max(0, ...facts.map(({ name }) => name.length));
  const lines = facts.map(({ name, value }) => `${name.padEnd(width)}  ${value}`);
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
  if (plan.warnings.length > 0) lines.push('', ...plan.warnings.map((text) => `warning: ${text}`));
  return lines;
}
