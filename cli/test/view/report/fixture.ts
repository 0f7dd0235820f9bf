import { readFileSync } from 'node:fs';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { type Report, ReportSchema } from '../../../src/gen/qscope/v1/report_pb.js';
import { reportPage } from '../../../src/view/report/page.js';

const template: JsonValue = JSON.parse(readFileSync(new URL('every-kind.json', import.meta.url), 'utf8'));

/** A report with every kind of section. */
export function everyKind(): Report {
  return fromJson(ReportSchema, template);
}

export const OPTIONS = { kicker: 'qscope report · steer · demo-1a2b', colophon: 'Written by a test.' };

export function pageOf(report: Report): string {
  return reportPage(report, OPTIONS);
}

/** What a text may try. */
export const EVIL = [
  '<script>alert(1)</script>',
  '</script><script>alert(1)</script>',
  '</style><img src=x onerror=alert(1)>',
  '" onfocus="alert(1)" autofocus x="',
  "' onfocus='alert(1)' x='",
  '<svg/onload=alert(1)>',
  '</title></textarea><b>',
  '<!--',
  '-->',
  ']]>',
  '<![CDATA[',
  '&lt;b&gt;',
  '&#x3c;b>',
  '`+alert(1)+`',
  'javascript:alert(1)',
  '\u0000<\u0000s\u0000cript>',
  '\u202e<b>\u2066',
  '\u2028</script\u2029>',
];

/** A page of every kind of section in which every text is made of `texts`; equal ones by equal ones. */
export function pageWith(texts: readonly string[], change = (text: string) => text): string {
  const known = new Map<string, string>();
  const replaced = withTexts(template, (text) => {
    // A number of its own keeps texts that were different different.
    if (!known.has(text)) known.set(text, `${texts[known.size % texts.length]}${known.size}`);
    return change(known.get(text) as string);
  });
  const [kicker = '', colophon = kicker] = texts.map(change);
  return reportPage(fromJson(ReportSchema, replaced), { kicker, colophon });
}

/** A copy of a value with every text in it replaced, except those that are empty. */
function withTexts(value: JsonValue, replace: (text: string) => string, key = ''): JsonValue {
  if (typeof value === 'string') {
    const isText = value !== '' && !/^(REPORT_TONE|NUMBER_STYLE)_/.test(value) && value !== 'NaN' && key !== 'n';
    return isText ? replace(value) : value;
  }
  if (Array.isArray(value)) return value.map((item) => withTexts(item, replace, key));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, withTexts(item, replace, name)]));
}
