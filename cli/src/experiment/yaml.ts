import {
  Composer,
  type CST,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  type ParsedNode,
  Parser,
  Scalar,
  type YAMLMap,
} from 'yaml';
import type { Diagnostics } from './diagnostic.js';
import type { Source } from './source.js';
import type { Entry, MapTree, ScalarTree, Tree } from './tree.js';

/** Bounds that keep hostile files from costing time, memory or stack; real files stay a hundred times below. */
const MAX_LEXEMES = 30_000;
const MAX_NODES = 20_000;
const MAX_DEPTH = 64;
/** Follow-ups of one broken line are noise. */
const MAX_SYNTAX_ERRORS = 10;

const plainTags = new Set(
  ['str', 'int', 'float', 'bool', 'null', 'map', 'seq'].map((tag) => `tag:yaml.org,2002:${tag}`),
);

/**
 * Parses one YAML 1.2 document into a tree, or reports its faults and returns nothing. Aliases and merge keys (`<<`)
 * are expanded. `start` is where the YAML begins inside the source.
 */
export function parseYaml(
  source: Source,
  diagnostics: Diagnostics,
  start = 0,
  end = source.text.length,
): Tree | undefined {
  const text = source.text.slice(start, end);
  const report = (offset: number, message: string, suggestion?: string) =>
    diagnostics.add({ source, offset: start + Math.min(offset, text.length) }, '', message, suggestion);

  // biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is the purpose
  const control = text.search(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/);
  if (control >= 0) {
    const code = text.charCodeAt(control).toString(16).padStart(4, '0').toUpperCase();
    report(control, `the text holds the control character U+${code}`, 'remove it; is this a text file?');
    return undefined;
  }

  const tokens = tokenise(text, report);
  if (!tokens || !checkNesting(tokens, text, report)) return undefined;

  // Unique keys and pretty errors take quadratic time in the library; both are done here in linear time.
  const composer = new Composer({ uniqueKeys: false, prettyErrors: false, intAsBigInt: true, logLevel: 'silent' });
  const [document, second] = [...composer.compose(tokens, true, text.length)];
  if (!document) throw new Error('the YAML composer made no document');

  const problems = [...document.errors, ...document.warnings];
  const places = new Set<number>();
  for (const { pos, code, message } of problems) {
    if (places.has(pos[0]) || places.size === MAX_SYNTAX_ERRORS) continue;
    places.add(pos[0]);
    report(pos[0], syntaxMessage(code, message), syntaxHint(code, source));
  }
  if (problems.length > 0) return undefined;
  if (document.directives?.yaml.explicit && document.directives.yaml.version !== '1.2') {
    report(
      0,
      `the file asks for YAML ${document.directives.yaml.version}`,
      'experiments are YAML 1.2; remove the %YAML line',
    );
    return undefined;
  }
  if (second) {
    report(second.range[0], 'the file holds several YAML documents', 'keep one; remove the line with three dashes');
    return undefined;
  }
  return new Converter(document, source, start, diagnostics).convert();
}

type Report = (offset: number, message: string, suggestion?: string) => void;

function tokenise(text: string, report: Report): CST.Token[] | undefined {
  const parser = new Parser();
  const tokens: CST.Token[] = [];
  let lexemes = 0;
  let offset = 0;
  try {
    for (const lexeme of new Lexer().lex(text)) {
      lexemes += 1;
      offset = parser.offset;
      if (lexemes > MAX_LEXEMES) {
        report(0, 'the YAML is far larger than any experiment');
        return undefined;
      }
      for (const token of parser.next(lexeme)) tokens.push(token);
    }
    for (const token of parser.end()) tokens.push(token);
    return tokens;
  } catch (error) {
    // The parser closes nested blocks by recursion; only thousands of them exhaust the stack.
    if (!(error instanceof RangeError)) throw error;
    report(offset, `the YAML is nested more than ${MAX_DEPTH} levels deep`);
    return undefined;
  }
}

/** Reports what is nested too deep or never closed; false when the composer should not see it. */
function checkNesting(tokens: readonly CST.Token[], text: string, report: Report): boolean {
  // The composer recurses; walking the parser's tokens with a list keeps deep nesting away from the stack.
  const open: { token: CST.Token; depth: number }[] = tokens.map((token) => ({ token, depth: 0 }));
  const unclosed: number[] = [];
  for (let next = open.pop(); next; next = open.pop()) {
    const { token, depth } = next;
    if (depth > MAX_DEPTH) {
      report(token.offset, `the YAML is nested more than ${MAX_DEPTH} levels deep`);
      return false;
    }
    if (isUnclosed(token)) unclosed.push(token.offset);
    if (token.type === 'document' && token.value) open.push({ token: token.value, depth });
    if ('items' in token) {
      for (const { key, value } of token.items as CST.CollectionItem[]) {
        if (key) open.push({ token: key, depth: depth + 1 });
        if (value) open.push({ token: value, depth: depth + 1 });
      }
    }
  }
  // The library reports these at the end of the file, where nothing is wrong.
  for (const offset of unclosed.sort((a, b) => a - b).slice(0, MAX_SYNTAX_ERRORS)) {
    report(offset, `this ${text[offset]} is never closed`);
  }
  return unclosed.length === 0;
}

function isUnclosed(token: CST.Token): boolean {
  if (token.type === 'flow-collection') return token.end.length === 0;
  if (token.type === 'double-quoted-scalar' || token.type === 'single-quoted-scalar') {
    return token.source.length < 2 || token.source.at(-1) !== token.source[0];
  }
  return false;
}

function syntaxMessage(code: string, message: string): string {
  if (code === 'TAB_AS_INDENT') return 'a tab indents this line';
  if (code === 'TAG_RESOLVE_FAILED')
    return message.replace(/^Unresolved tag:/, 'unknown tag').replace('tag:yaml.org,2002:', '!!');
  return `not valid YAML: ${message.charAt(0).toLowerCase()}${message.slice(1)}`;
}

function syntaxHint(code: string, { isOption }: Source): string | undefined {
  if (code === 'TAB_AS_INDENT') return 'indent with spaces';
  if (code === 'TAG_RESOLVE_FAILED') return 'experiments need no YAML tags; remove it';
  if (code === 'BAD_SCALAR_START' || (code === 'UNEXPECTED_TOKEN' && isOption)) return 'put the value in quotes';
  if (code === 'BLOCK_AS_IMPLICIT_KEY')
    return 'the next line is indented too far, or this text holds a colon and needs quotes';
  return undefined;
}

class Stop extends Error {}

/** Turns the library's nodes into a tree, expanding aliases within a budget. */
class Converter {
  readonly #document: Document.Parsed;
  readonly #source: Source;
  readonly #start: number;
  readonly #diagnostics: Diagnostics;
  readonly #anchors = new Map<string, ParsedNode>();
  readonly #open = new Set<ParsedNode>();
  readonly #faultsBefore: number;
  #nodes = 0;
  #broken = false;

  constructor(document: Document.Parsed, source: Source, start: number, diagnostics: Diagnostics) {
    this.#document = document;
    this.#source = source;
    this.#start = start;
    this.#diagnostics = diagnostics;
    this.#faultsBefore = diagnostics.count;
  }

  convert(): Tree | undefined {
    const root = this.#document.contents as ParsedNode | null;
    if (!root) return this.#emptyScalar(0);
    try {
      const tree = this.#convert(root, 0);
      return this.#broken ? undefined : tree;
    } catch (error) {
      if (error instanceof Stop && this.#diagnostics.count > this.#faultsBefore) return undefined;
      throw error;
    }
  }

  #at(offset: number) {
    return { source: this.#source, offset: this.#start + offset };
  }

  #report(node: ParsedNode, message: string, suggestion?: string): void {
    this.#diagnostics.add(this.#at(node.range[0]), '', message, suggestion);
  }

  #emptyScalar(offset: number): ScalarTree {
    return { kind: 'scalar', at: this.#at(offset), value: null, text: '', quoted: false };
  }

  #convert(node: ParsedNode, depth: number): Tree {
    this.#nodes += 1;
    if (this.#nodes > MAX_NODES || depth > MAX_DEPTH) {
      this.#report(node, 'the YAML, with its aliases expanded, is far larger than any experiment');
      throw new Stop();
    }
    if (isAlias(node)) return this.#convertAlias(node as ParsedNode & { source: string }, depth);
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, node);
    if (node.tag !== undefined && !plainTags.has(node.tag)) {
      this.#report(
        node,
        `unknown tag ${node.tag.replace('tag:yaml.org,2002:', '!!')}`,
        'experiments need no YAML tags; remove it',
      );
    }
    const at = this.#at(node.range[0]);
    if (isScalar(node)) return this.#convertScalar(node as Scalar.Parsed, at.offset - this.#start);
    this.#open.add(node);
    try {
      if (isSeq(node)) {
        return { kind: 'list', at, items: node.items.map((item) => this.#convert(item as ParsedNode, depth + 1)) };
      }
      if (isMap(node)) return this.#convertMap(node as YAMLMap.Parsed, depth);
    } finally {
      this.#open.delete(node);
    }
    throw new Error('a YAML node of unknown kind');
  }

  #convertAlias(alias: ParsedNode & { source: string }, depth: number): Tree {
    const name = alias.source;
    const target = this.#anchors.get(name);
    if (!target || this.#open.has(target)) {
      const message = target ? `the alias *${name} refers to itself` : `the alias *${name} names no anchor above it`;
      const hint = this.#source.isOption
        ? 'a text that starts with * needs quotes'
        : `a text that starts with * needs quotes: "*${name}"`;
      this.#broken = true;
      this.#report(alias, message, hint);
      return this.#emptyScalar(alias.range[0]);
    }
    return this.#convert(target, depth + 1);
  }

  #convertScalar(node: Scalar.Parsed, offset: number): ScalarTree {
    const value = node.value as ScalarTree['value'];
    const quoted = node.type !== Scalar.PLAIN;
    const text = node.source ?? (typeof value === 'string' ? value : '');
    const known = value === null || ['string', 'number', 'bigint', 'boolean'].includes(typeof value);
    return { kind: 'scalar', at: this.#at(offset), value: known ? value : text, text, quoted };
  }

  #convertMap(node: YAMLMap.Parsed, depth: number): MapTree {
    const entries = new Map<string, Entry>();
    const inherited: MapTree[] = [];
    for (const pair of node.items) {
      const key = pair.key as ParsedNode;
      const value = pair.value as ParsedNode | null;
      if (!isScalar(key) || key.value === null) {
        this.#report(key, 'a key must be a plain name');
        continue;
      }
      const name = key.source ?? String(key.value);
      const keyAt = this.#at(key.range[0]);
      if (name === '<<' && key.type === Scalar.PLAIN) {
        if (value) inherited.push(...this.#mergeSources(value, depth));
        continue;
      }
      if (key.anchor !== undefined) this.#anchors.set(key.anchor, key);
      const tree = value ? this.#convert(value, depth + 1) : this.#emptyScalar(key.range[1]);
      const first = entries.get(name);
      if (first) {
        const { line } = this.#source.position(first.keyAt.offset);
        this.#report(key, `${quoteKey(name)} is given twice`, `the first is on line ${line}; keep one`);
        continue;
      }
      entries.set(name, { keyAt, value: tree });
    }
    for (const map of inherited) {
      for (const [name, entry] of map.entries) if (!entries.has(name)) entries.set(name, entry);
    }
    return { kind: 'map', at: this.#at(node.range[0]), entries };
  }

  #mergeSources(value: ParsedNode, depth: number): MapTree[] {
    const tree = this.#convert(value, depth + 1);
    const sources = tree.kind === 'list' ? tree.items : [tree];
    const maps = sources.filter((source) => source.kind === 'map');
    if (maps.length < sources.length) this.#report(value, '<< needs a mapping, usually an alias of one');
    return maps;
  }
}

function quoteKey(name: string): string {
  return `"${name.length > 40 ? `${name.slice(0, 40)}...` : name}"`;
}
