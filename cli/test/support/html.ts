/** An element of a page as our templates write it. */
export interface Element {
  name: string;
  attributes: Map<string, string>;
  children: Array<Element | string>;
}

const VOID = new Set(['meta', 'link', 'input', 'wbr']);
const RAW = new Set(['script', 'style']);

/**
 * Reads a page that keeps to the strict half of HTML: every element that is not void is closed (an SVG element may close
 * itself), every attribute is quoted, and no bare `<`, `>`, or quote stands in text. Throws where a page does not.
 */
export function parseHtml(page: string): Element {
  const root: Element = { name: '#page', attributes: new Map(), children: [] };
  const open: Element[] = [root];
  let rest = page.replace(/^<!doctype html>/, '');
  while (rest) {
    const parent = open.at(-1) as Element;
    const text = /^[^<>"'`]+/.exec(rest)?.[0];
    const close = /^<\/([a-z][a-z0-9]*)>/.exec(rest);
    const tag = /^<([a-z][a-z0-9]*)((?: [a-z][a-zA-Z-]*(?:="[^"<>]*")?)*)(\/?)>/.exec(rest);
    if (text) {
      parent.children.push(decode(text));
      rest = rest.slice(text.length);
    } else if (close) {
      if (parent.name !== close[1]) throw new Error(`</${close[1]}> closes <${parent.name}>`);
      open.pop();
      rest = rest.slice(close[0].length);
    } else if (tag) {
      const [whole, name, list, self] = tag as unknown as [string, string, string, string];
      const element: Element = { name, attributes: attributesOf(list), children: [] };
      parent.children.push(element);
      rest = rest.slice(whole.length);
      if (RAW.has(name)) {
        const end = rest.toLowerCase().indexOf(`</${name}`);
        element.children.push(rest.slice(0, end));
        rest = rest.slice(rest.indexOf('>', end) + 1);
      } else if (!self && !VOID.has(name)) {
        open.push(element);
      }
    } else {
      throw new Error(`no HTML of ours: ${JSON.stringify(rest.slice(0, 80))}`);
    }
  }
  if (open.length > 1) throw new Error(`<${open.at(-1)?.name}> is not closed`);
  return root;
}

function attributesOf(list: string): Map<string, string> {
  const found = [...list.matchAll(/ ([a-zA-Z-]+)(?:="([^"]*)")?/g)];
  const attributes = new Map(found.map(([, name, value = '']) => [name as string, decode(value)]));
  if (attributes.size < found.length) throw new Error(`an attribute is given twice: ${list}`);
  return attributes;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&lt;': '<',
  '&gt;': '>',
  '&quot;': '"',
  '&#39;': "'",
  '&#96;': '`',
  '&amp;': '&',
};

function decode(text: string): string {
  const bare = text.replace(/&(lt|gt|quot|#39|#96|amp);/g, '');
  if (bare.includes('&')) throw new Error(`a bare &: ${JSON.stringify(text)}`);
  return text.replace(/&(lt|gt|quot|#39|#96|amp);/g, (entity) => ENTITIES[entity] as string);
}

/** All elements below one, in the order of the page. */
export function* elements(root: Element): Generator<Element> {
  for (const child of root.children) {
    if (typeof child === 'string') continue;
    yield child;
    yield* elements(child);
  }
}

/** Elements of a name, with a class if one is given. */
export function all(root: Element, name: string, className?: string): Element[] {
  return [...elements(root)].filter(
    (element) =>
      element.name === name && (!className || (element.attributes.get('class') ?? '').split(' ').includes(className)),
  );
}

/** The text of an element, without style and script. */
export function textOf(element: Element): string {
  if (RAW.has(element.name)) return '';
  return element.children.map((child) => (typeof child === 'string' ? child : textOf(child))).join('');
}
