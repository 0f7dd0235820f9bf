/**
 * Every colour of the page, for light and dark. Scales are safe for colour-blind readers: lines of an order run along
 * viridis, heat along the lightness of one hue, signs from blue to orange. Colours are classes, not `style` attributes:
 * the page's policy allows no inline styles.
 */

type Rgb = readonly [number, number, number];

interface Theme {
  named: Readonly<Record<string, string>>;
  /** Curves without an order, after Okabe and Ito; darkened or lightened until they stand out from the paper. */
  lines: readonly string[];
  /** Part of viridis that stands out from the paper. */
  viridis: readonly [number, number];
  heat: readonly string[];
  positive: readonly string[];
  negative: readonly string[];
}

const LIGHT: Theme = {
  named: {
    paper: '#fdfcf9',
    raised: '#f5f3ed',
    ink: '#1d1e20',
    soft: '#5a5d62',
    rule: '#d9d5cb',
    grid: '#e8e5dd',
    accent: '#155a8a',
    'warning-ink': '#6b4600',
    'warning-paper': '#fcf2da',
    'error-ink': '#8c1d18',
    'error-paper': '#fbeae7',
  },
  lines: ['#0072b2', '#c45100', '#00805c', '#a8438a', '#8a6d00', '#2f8fc4', '#5b4bb5', '#555555'],
  viridis: [0, 0.58],
  heat: ['#fdfcf9', '#9cc4de', '#2f7fb4', '#083a5c'],
  positive: ['#fdfcf9', '#f7c794', '#e08214', '#8f4300'],
  negative: ['#fdfcf9', '#a9cbe4', '#4393c3', '#1a4f85'],
};

const DARK: Theme = {
  named: {
    paper: '#15171a',
    raised: '#1d2024',
    ink: '#e5e3de',
    soft: '#a2a5ab',
    rule: '#373b41',
    grid: '#282b30',
    accent: '#84bde6',
    'warning-ink': '#edc874',
    'warning-paper': '#2b2413',
    'error-ink': '#f4a9a2',
    'error-paper': '#331c1b',
  },
  lines: ['#56b4e9', '#f0884a', '#2fbf93', '#d98fc0', '#d6bd3f', '#9ecbea', '#a99cf0', '#b5b5b5'],
  viridis: [0.36, 1],
  heat: ['#15171a', '#1d4a66', '#3f8fbd', '#c6e4f5'],
  positive: ['#15171a', '#5e3611', '#c77a22', '#fbc98a'],
  negative: ['#15171a', '#1c4261', '#3f86b8', '#a9d4f2'],
};

const VIRIDIS = ['#440154', '#472d7b', '#3b528b', '#2c728e', '#21918c', '#28ae80', '#5ec962', '#addc30', '#fde725'];
const WORDS_LIGHT = '#ffffff';
const WORDS_DARK = '#000000';

/** Shades of an ordered family of curves. */
export const ORDERED_SHADES = 16;
/** Shades of a heat map, and of each sign of a diverging one; shade 0 is the paper. */
export const HEAT_SHADES = 12;
/** Curves that can be told apart by colour alone; the next ones are dashed. */
export const LINE_COLOURS = LIGHT.lines.length;

/** Class of curve `index` of `count`. */
export function lineClass(index: number, count: number, ordered: boolean): string {
  if (!ordered) return `c${index % LINE_COLOURS}`;
  return `q${count < 2 ? 0 : Math.round((index / (count - 1)) * (ORDERED_SHADES - 1))}`;
}

/** Class of a value between 0 and 1 of a scale of heat; empty for the paper itself. */
export function heatClass(share: number): string {
  const shade = Math.round(Math.min(1, Math.max(0, share)) * HEAT_SHADES);
  return shade > 0 ? `h${shade}` : '';
}

/** Class of a value between -1 and 1 of a diverging scale. A value that is not zero is never shown as none. */
export function signClass(share: number): string {
  if (!(Math.abs(share) > 0)) return '';
  const shade = Math.max(1, Math.round(Math.min(1, Math.abs(share)) * HEAT_SHADES));
  return share > 0 ? `p${shade}` : `n${shade}`;
}

/** The style rules of all colours. */
export function paletteCss(): string {
  return `:root{color-scheme:light dark;${rules(LIGHT).root}}
${rules(LIGHT).classes}
@media screen and (prefers-color-scheme:dark){
:root{${rules(DARK).root}}
${rules(DARK).classes}
}
`;
}

function rules(theme: Theme): { root: string; classes: string } {
  const shades = (name: string, anchors: readonly string[]) =>
    Array.from({ length: HEAT_SHADES }, (_, index) => {
      const back = along(anchors, (index + 1) / HEAT_SHADES);
      return `.${name}${index + 1}{background:${back};color:${wordsOn(back)}}`;
    });
  const [from, to] = theme.viridis;
  const lines = [
    ...theme.lines.map((colour, index) => `.c${index}{color:${colour}}`),
    ...Array.from({ length: ORDERED_SHADES }, (_, index) => {
      return `.q${index}{color:${along(VIRIDIS, from + ((to - from) * index) / (ORDERED_SHADES - 1))}}`;
    }),
  ];
  return {
    root: Object.entries(theme.named)
      .map(([name, colour]) => `--${name}:${colour};`)
      .join(''),
    classes: [
      ...lines,
      ...shades('h', theme.heat),
      ...shades('p', theme.positive),
      ...shades('n', theme.negative),
    ].join('\n'),
  };
}

/** The colour at `share` of a scale given by evenly spaced anchors. */
function along(anchors: readonly string[], share: number): string {
  const place = share * (anchors.length - 1);
  const index = Math.min(anchors.length - 2, Math.floor(place));
  const [start, end] = [rgb(anchors[index] as string), rgb(anchors[index + 1] as string)];
  const mixed = start.map((part, channel) => part + ((end[channel] as number) - part) * (place - index));
  return `#${mixed.map((part) => Math.round(part).toString(16).padStart(2, '0')).join('')}`;
}

function wordsOn(back: string): string {
  return contrast(WORDS_DARK, back) >= contrast(WORDS_LIGHT, back) ? WORDS_DARK : WORDS_LIGHT;
}

/** Contrast of two colours after WCAG 2, between 1 and 21. */
export function contrast(a: string, b: string): number {
  const [darker, lighter] = [luminance(a), luminance(b)].sort((x, y) => x - y) as [number, number];
  return (lighter + 0.05) / (darker + 0.05);
}

function luminance(colour: string): number {
  const [red, green, blue] = rgb(colour).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function rgb(colour: string): Rgb {
  const part = (from: number) => Number.parseInt(colour.slice(from, from + 2), 16);
  return [part(1), part(3), part(5)];
}
