// The script of the page of `qscope report`: sorting, reading values, setting curves off. Without it the page shows all
// the same, and the numbers of every plot are in the table below it.

const SVG = 'http://www.w3.org/2000/svg';
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function element(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

// -- one tip for the whole page, and a line for screen readers -------------------------------------------------------

const tip = element('div', { class: 'tip', hidden: '' });
const spoken = element('div', { class: 'unseen', role: 'status' });
document.body.append(tip, spoken);

let tipOwner;

/** Shows the tip of an element beside a place of the window, where there is room. */
function showTip(owner, content, { left, top, bottom }) {
  tipOwner = owner;
  tip.replaceChildren(content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const space = document.documentElement.clientWidth;
  const above = top - height - 8;
  tip.style.left = `${window.scrollX + Math.max(4, Math.min(left, space - width - 4))}px`;
  tip.style.top = `${window.scrollY + (above >= 0 ? above : bottom + 8)}px`;
}

/** Another element's tip stays: the pointer may leave one thing while the keyboard is on another. */
function hideTip(owner) {
  if (owner === tipOwner) tip.hidden = true;
}

document.addEventListener('keydown', ({ key }) => {
  if (key === 'Escape') hideTip(tipOwner);
});

// -- what scrolls can be reached with the Tab key --------------------------------------------------------------------

const scrollers = all('.scroll, pre');
function markScrollers() {
  for (const box of scrollers) {
    if (box.scrollWidth > box.clientWidth + 4) box.tabIndex = 0;
    else box.removeAttribute('tabindex');
  }
}
markScrollers();
new ResizeObserver(markScrollers).observe(document.body);
addEventListener('toggle', markScrollers, true);

// -- tables ----------------------------------------------------------------------------------------------------------

const collator = new Intl.Collator('en', { numeric: true });

/** Numbers by size, text by the alphabet, empty cells and NaN last in both directions. */
function compare(a, b, sign) {
  if (a.empty || b.empty) return Number(a.empty) - Number(b.empty);
  if (a.number !== undefined && b.number !== undefined) return sign * (a.number - b.number);
  return sign * collator.compare(a.text, b.text);
}

function keyOf(cell) {
  const text = cell.textContent;
  if (cell.dataset.value === undefined) return { text, empty: text === '' };
  const number = Number(cell.dataset.value);
  return { text, number, empty: Number.isNaN(number) };
}

for (const button of all('.sortable .sort')) {
  button.addEventListener('click', () => {
    const head = button.closest('th');
    const table = button.closest('table');
    const order = head.getAttribute('aria-sort') === 'ascending' ? 'descending' : 'ascending';
    for (const other of head.parentElement.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', order);
    const sign = order === 'ascending' ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: keyOf(row.cells[head.cellIndex]) }));
    rows.sort((a, b) => compare(a.key, b.key, sign));
    table.tBodies[0].append(...rows.map(({ row }) => row));
    spoken.textContent = `Sorted by ${head.textContent}, ${order}.`;
  });
}

// -- a group of things is one stop of the Tab key; the arrow keys move inside it --------------------------------------

/** @param {(from: number, key: string) => number} next index of the item that a key leads to; outside: nowhere. */
function roving(items, next) {
  for (const [index, item] of items.entries()) item.tabIndex = index === 0 ? 0 : -1;
  return (event) => {
    const from = items.indexOf(event.target);
    if (from < 0) return;
    const to = items[next(from, event.key)];
    if (!to) return;
    event.preventDefault();
    items[from].tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  };
}

function alongRow(count) {
  return (from, key) => {
    if (key === 'ArrowRight') return from + 1;
    if (key === 'ArrowLeft') return from - 1;
    if (key === 'Home') return 0;
    return key === 'End' ? count - 1 : -1;
  };
}

function alongGrid(columns, count) {
  return (from, key) => {
    if (key === 'ArrowDown') return from + columns;
    if (key === 'ArrowUp') return from - columns;
    const first = from - (from % columns);
    if (key === 'Home') return first;
    if (key === 'End') return Math.min(count, first + columns) - 1;
    const to = alongRow(count)(from, key);
    return to - (to % columns) === first ? to : -1;
  };
}

/** Tells what an item is while the pointer or the focus is on it. */
function tell(group, itemOf, describe) {
  const show = ({ target }) => {
    const item = itemOf(target);
    if (item) showTip(group, document.createTextNode(describe(item)), item.getBoundingClientRect());
    return item;
  };
  group.addEventListener('pointerover', show);
  group.addEventListener('pointerout', () => hideTip(group));
  group.addEventListener('focusout', () => hideTip(group));
  group.addEventListener('focusin', (event) => {
    const item = show(event);
    if (item) spoken.textContent = describe(item);
  });
}

for (const group of all('.tokens')) {
  const tokens = all('span', group);
  // Text without values is text like any other.
  if (!tokens.some(({ dataset }) => dataset.value)) continue;
  group.addEventListener('keydown', roving(tokens, alongRow(tokens.length)));
  tell(
    group,
    (target) => (tokens.includes(target) ? target : undefined),
    ({ textContent, dataset }) => `“${textContent}”  ${dataset.value ?? '0'}`,
  );
}

for (const table of all('.matrix')) {
  const [heads, ...rows] = [...table.rows];
  const cells = rows.flatMap((row) => all('td', row));
  const columns = heads.cells.length - 1;
  table.tBodies[0].addEventListener('keydown', roving(cells, alongGrid(columns, cells.length)));
  tell(
    table.tBodies[0],
    (target) => target.closest('td'),
    (cell) => {
      const names = [cell.parentElement.cells[0], heads.cells[cell.cellIndex]].map(({ textContent }) => textContent);
      return `${names.join(' · ')}  ${cell.textContent || 'no value'}`;
    },
  );
}

// -- legends ---------------------------------------------------------------------------------------------------------

for (const legend of all('.legend')) {
  const buttons = all('button', legend);
  const scope = legend.closest('figure') ?? legend.closest('section');
  const emphasise = (hovered) => {
    const chosen = buttons.filter((button) => button === hovered || button.ariaPressed === 'true');
    const curves = new Set(chosen.map(({ dataset }) => dataset.curve));
    scope.classList.toggle('emphasis', curves.size > 0);
    for (const curve of all('.curve', scope)) curve.classList.toggle('chosen', curves.has(curve.dataset.curve));
  };
  legend.addEventListener('keydown', roving(buttons, alongRow(buttons.length)));
  for (const button of buttons) {
    button.addEventListener('click', () => {
      button.ariaPressed = String(button.ariaPressed !== 'true');
      emphasise();
    });
    button.addEventListener('pointerenter', ({ pointerType }) => pointerType === 'mouse' && emphasise(button));
    button.addEventListener('pointerleave', () => emphasise());
  }
}

// -- reading the values of plots -------------------------------------------------------------------------------------

const [FIXED, PERCENT] = [1, 2];

/** Numbers as the page writes them elsewhere (cli/src/view/format.ts). */
function format(value, [style, digits]) {
  if (value === null || value === undefined) return '–';
  if (style === PERCENT) return `${(100 * value).toFixed(1)}%`;
  const tiny = value !== 0 && Math.abs(value) < (style === FIXED ? 0.5 * 10 ** -digits : 1e-3);
  if (tiny || Math.abs(value) >= 1e6) {
    return Number.isInteger(value) && Math.abs(value) < 1e15 ? value.toLocaleString('en-US') : value.toExponential(2);
  }
  if (style === FIXED) return value.toFixed(digits);
  return Number.isInteger(value) ? value.toLocaleString('en-US') : value.toPrecision(4);
}

/** Index of the place nearest to `wanted`. */
function nearest(places, wanted) {
  let best = -1;
  for (const [index, place] of places.entries()) {
    if (place === null) continue;
    if (best < 0 || Math.abs(place - wanted) < Math.abs(places[best] - wanted)) best = index;
  }
  return best;
}

function setUpReader(canvas) {
  const plot = JSON.parse(canvas.querySelector('script').textContent);
  const [left, top, right, bottom, width, height] = plot.box;
  const stops = [...new Set(plot.at.flat())].filter((place) => place !== null).sort((a, b) => a - b);
  if (stops.length === 0) return;
  const svg = canvas.querySelector('svg');
  const curves = all('.curve', svg);
  const cursor = document.createElementNS(SVG, 'path');
  cursor.setAttribute('class', 'cursor');
  svg.append(cursor);

  const slider = element('input', {
    type: 'range',
    class: 'reader',
    min: stops[0],
    max: stops.at(-1),
    step: 'any',
    value: stops.at(-1),
    'aria-label': `Read values along ${plot.label || 'x'}: ${canvas.closest('section').querySelector('h2, h3, h4, h5, h6').textContent}`,
  });
  // The thumb is 9 pixels wide and stays inside its slider: so much wider than the axis is the slider.
  const stretch = (places) => `${(100 * places) / width}%`;
  slider.style.left = `calc(${stretch(stops[0])} - 5px)`;
  slider.style.width = `calc(${stretch(stops.at(-1) - stops[0])} + 10px)`;
  slider.style.top = `${(100 * bottom) / height}%`;
  canvas.append(slider);

  const read = (place) =>
    plot.curves.map(([name, own, values], index) => {
      const at = nearest(plot.at[own], place);
      return { name, value: values[at], x: plot.values[own][at], curve: curves[index] };
    });

  function show(place) {
    slider.value = place;
    cursor.setAttribute('d', `M${place} ${top}V${bottom}`);
    const rows = read(place);
    const x = rows.find(({ curve }) => curve)?.x;
    const heading = `${plot.label || 'x'} ${format(x, plot.x)}`;
    const line = ({ name, value, curve, x: own }) => {
      const swatch = element('td');
      const mark = document.createElementNS(SVG, 'svg');
      mark.setAttribute('class', `swatch ${curve.classList[1]}`);
      mark.setAttribute('viewBox', '0 0 22 8');
      const stroke = document.createElementNS(SVG, 'path');
      stroke.setAttribute('d', 'M1 4H21');
      mark.append(stroke);
      swatch.append(mark);
      const where = own === x ? '' : ` (at ${format(own, plot.x)})`;
      return element(
        'tr',
        { class: curve.classList.contains('chosen') ? 'chosen' : '' },
        swatch,
        element('td', { text: name }),
        element('td', { text: format(value, plot.y) + where }),
      );
    };
    const perList = rows.length > 12 ? Math.ceil(rows.length / Math.ceil(rows.length / 12)) : rows.length;
    const lists = element('div', { class: 'lists' });
    for (let from = 0; from < rows.length; from += perList) {
      lists.append(element('table', {}, ...rows.slice(from, from + perList).map(line)));
    }
    const box = canvas.getBoundingClientRect();
    const at = box.left + (box.width * place) / width;
    showTip(canvas, element('div', {}, element('div', { text: heading }), lists), { left: at + 12, ...sides(box) });
    slider.setAttribute('aria-valuetext', `${heading}: ${sayAll(rows)}`);
  }

  const sides = (box) => ({ top: box.top + 12, bottom: box.bottom });

  function sayAll(rows) {
    const say = ({ name, value }) => `${name} ${format(value, plot.y)}`;
    const chosen = rows.filter(({ curve }) => curve.classList.contains('chosen'));
    if (chosen.length > 0 || rows.length <= 6) return (chosen.length > 0 ? chosen : rows).map(say).join(', ');
    const sorted = rows.filter(({ value }) => typeof value === 'number').sort((a, b) => a.value - b.value);
    return sorted.length > 0 ? `lowest ${say(sorted[0])}, highest ${say(sorted.at(-1))}` : 'no values';
  }

  function clear() {
    if (document.activeElement === slider) return;
    cursor.setAttribute('d', '');
    hideTip(canvas);
  }

  const here = () => nearest(stops, Number(slider.value));
  const keys = {
    ArrowRight: (index) => index + 1,
    ArrowUp: (index) => index + 1,
    ArrowLeft: (index) => index - 1,
    ArrowDown: (index) => index - 1,
    PageUp: (index) => Math.min(stops.length - 1, index + 10),
    PageDown: (index) => Math.max(0, index - 10),
    Home: () => 0,
    End: () => stops.length - 1,
  };
  // From one point to the next, however far it is.
  slider.addEventListener('keydown', (event) => {
    const place = stops[keys[event.key]?.(here())];
    if (keys[event.key]) event.preventDefault();
    if (place !== undefined) show(place);
  });
  slider.addEventListener('input', () => show(stops[here()]));
  slider.addEventListener('focus', () => slider.matches(':focus-visible') && show(stops[here()]));
  slider.addEventListener('blur', clear);
  svg.addEventListener('pointermove', ({ clientX }) => {
    const box = canvas.getBoundingClientRect();
    const place = ((clientX - box.left) / box.width) * width;
    if (place < left - 6 || place > right + 6) return clear();
    show(stops[nearest(stops, place)]);
  });
  svg.addEventListener('pointerleave', clear);
}

for (const canvas of all('.canvas')) setUpReader(canvas);
