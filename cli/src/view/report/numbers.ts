import { type NumberFormat, NumberStyle } from '../../gen/qscope/v1/report_pb.js';
import { bytes, clock, count, decimals, percent, significant } from '../format.js';

/** A number as its column or axis wants it. */
export function formatNumber(value: number, format?: NumberFormat): string {
  if (!Number.isFinite(value)) return significant(value);
  switch (format?.style) {
    case NumberStyle.FIXED:
      return decimals(value, format.digits);
    case NumberStyle.PERCENT:
      return percent(value);
    case NumberStyle.INTEGER:
      return grouped(value);
    case NumberStyle.COUNT:
      return count(value);
    case NumberStyle.BYTES:
      return bytes(value);
    case NumberStyle.SECONDS:
      return value < 0 ? significant(value) : clock(value);
    default:
      return significant(value);
  }
}

/** 1234567 -> "1,234,567". */
export function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/**
 * The numbers of an axis: as the format says, all in one unit, with as many decimals as tell neighbours apart.
 *
 * @param step the distance of two ticks; 0 on a logarithmic axis.
 */
export function tickTexts(ticks: readonly number[], step: number, format?: NumberFormat): string[] {
  const style = format?.style ?? NumberStyle.UNSPECIFIED;
  const reach = Math.max(...ticks.map(Math.abs));
  const places = (unit: number) => Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
  return ticks.map((tick) => {
    if (style === NumberStyle.BYTES || style === NumberStyle.SECONDS) return formatNumber(tick, format);
    if (style === NumberStyle.PERCENT) {
      return step > 0 ? `${(100 * tick).toFixed(places(0.01))}%` : `${Number((100 * tick).toPrecision(2))}%`;
    }
    if (tick === 0) return '0';
    if (step === 0 || step < 1e-4 || reach >= 1e12) return shortest(tick);
    if (reach < 1e4) return tick.toFixed(places(1));
    const [unit, suffix] = reach >= 1e9 ? [1e9, 'G'] : reach >= 1e6 ? [1e6, 'M'] : [1e3, 'k'];
    return `${(tick / unit).toFixed(places(unit))}${suffix}`;
  });
}

function shortest(value: number): string {
  return Number(value.toPrecision(3)).toString().replace('e+', 'e');
}
