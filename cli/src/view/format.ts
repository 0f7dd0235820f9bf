/** Numbers for people. All functions are pure. */

/** 950 -> "950", 1234567 -> "1.2M". */
export function count(value: number): string {
  for (const [size, suffix] of [
    [1e12, 'T'],
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    // 999950 would round to "1000.0k".
    if (Math.abs(value) >= size * 0.99995) return `${(value / size).toFixed(1)}${suffix}`;
  }
  return Number.isInteger(value) ? String(value) : value.toPrecision(3);
}

/** 1536 -> "1.5 KiB". */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let size = value;
  let unit = 0;
  while (size >= 1023.95 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** Seconds as a clock: 75 -> "1:15", 3675 -> "1:01:15", 90000 -> "1 d 1 h". */
export function clock(seconds: number): string {
  const total = Math.round(seconds);
  const [days, hours, minutes] = [
    Math.floor(total / 86400),
    Math.floor(total / 3600) % 24,
    Math.floor(total / 60) % 60,
  ];
  const two = (part: number) => String(part).padStart(2, '0');
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(total % 60)}` : `${minutes}:${two(total % 60)}`;
}

/** Seconds in words, for estimates: 40 -> "40 s", 400 -> "7 min", 8000 -> "2.2 h", 200000 -> "2.3 days". */
export function spell(seconds: number): string {
  if (seconds < 1) return 'less than a second';
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`;
  return seconds < 2 * 86400 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

/** A share as percent: 0.004 -> "0.4%". */
export function percent(share: number): string {
  if (!Number.isFinite(share)) return special(share);
  return `${(100 * share).toFixed(1)}%`;
}

/** A number with a fixed number of decimals, or with 3 significant digits where those would show nothing. */
export function decimals(value: number, digits: number): string {
  if (!Number.isFinite(value)) return special(value);
  const tiny = value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits;
  return tiny || Math.abs(value) >= 1e6 ? value.toExponential(1) : value.toFixed(digits);
}

/** A number of unknown size, 4 significant digits. */
export function significant(value: number): string {
  if (!Number.isFinite(value)) return special(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const small = value !== 0 && Math.abs(value) < 1e-3;
  return small || Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toPrecision(4);
}

function special(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  return value > 0 ? 'inf' : '-inf';
}
