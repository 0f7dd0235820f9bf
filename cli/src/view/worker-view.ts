import type { BackgroundWorker } from '../worker/background.js';
import { clock } from './format.js';

/** The background worker for people. */
export function workerLines({ record, info }: BackgroundWorker): string[] {
  const pairs: Array<[string, string]> = [
    ['process', String(record.pid)],
    ['python', record.python],
    ['log', record.log],
  ];
  if (info) {
    pairs.push(
      ['version', `${info.packageVersion} (protocol ${info.protocolVersion})`],
      ['torch', info.torchVersion || 'not imported yet'],
      ['devices', info.devices.join(', ')],
      ['runs', info.activeRuns.join(', ') || 'none'],
      ['up', clock(info.uptimeSeconds)],
    );
  }
  const lines = pairs.map(([name, value]) => `${name.padEnd(7)}  ${value}`);
  return info ? lines : [...lines, 'It does not answer: end it with `qscope worker stop`.'];
}
