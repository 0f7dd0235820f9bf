import { readFileSync } from 'node:fs';
import { fromJson } from '@bufbuild/protobuf';
import { type Report, ReportSchema } from '../../../src/gen/qscope/v1/report_pb.js';
import { reportPage } from '../../../src/view/report/page.js';

export const EVERY_KIND = new URL('every-kind.json', import.meta.url);

/** A report with every kind of section. */
export function everyKind(): Report {
  return fromJson(ReportSchema, JSON.parse(readFileSync(EVERY_KIND, 'utf8')));
}

export const OPTIONS = { kicker: 'qscope report · steer · demo-1a2b', colophon: 'Written by a test.' };

export function pageOf(report: Report): string {
  return reportPage(report, OPTIONS);
}
