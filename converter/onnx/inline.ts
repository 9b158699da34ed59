/**
 * Expands calls of model functions whose bodies may hold attention, so that a site is seen whole wherever the exporter drew the
 * border of a function. The result is the same model with more nodes; other functions stay functions.
 */
import { Graph, readNode } from '../graph/graph.js';
import type { GraphNode } from '../graph/node.js';
import { openModel, type Model, type ModelFunction } from './model.js';
import type { ByteSource, Span } from './source.js';
import { concatenate, Cursor, fieldHeader } from './wire.js';
import { modelPieces, piecesSize, type GraphEdit, type Piece } from './write.js';

/** Operators that make a function worth expanding. */
const ATTENTION_PARTS: ReadonlySet<string> = new Set([
  'Softmax',
  'LogSoftmax',
  'Sigmoid',
  'Exp',
  'Attention',
  'MultiHeadAttention',
  'GroupQueryAttention',
  'BiasSoftmax',
]);

/** Expansions nested deeper than this are left alone. */
const MAX_ROUNDS = 8;

/** Nodes beyond which nothing more is expanded. */
const MAX_NODES = 500_000;

/** The model with such calls expanded; the model itself when it has none. */
export function inlineFunctions(model: Model): Model {
  let current = model;
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const chosen = attentionFunctions(current.functions);
    if (chosen.length === 0) return current;
    const calls = current.graph.nodes.flatMap((node) => {
      const callee = chosen.find((entry) => entry.domain === node.domain && entry.name === node.opType);
      return callee === undefined ? [] : [{ node, callee }];
    });
    const total = calls.reduce(
      (sum, { callee }) => sum + callee.body.nodes.length,
      current.graph.nodes.length,
    );
    if (calls.length === 0 || total > MAX_NODES) return current;
    current = expand(current, calls, round);
  }
  return current;
}

/** Functions that hold such an operator, themselves or in functions that they call. */
function attentionFunctions(functions: readonly ModelFunction[]): ModelFunction[] {
  const holds = new Set(
    functions.filter(({ body }) => body.nodes.some((node) => ATTENTION_PARTS.has(node.opType))),
  );
  for (let size = -1; size !== holds.size;) {
    size = holds.size;
    for (const entry of functions) {
      const calls = entry.body.nodes.some((node) =>
        [...holds].some((other) => other.domain === node.domain && other.name === node.opType),
      );
      if (calls) holds.add(entry);
    }
  }
  return [...holds].filter(({ domain }) => domain !== 'ort.sigmoid');
}

interface CallSite {
  readonly node: GraphNode;
  readonly callee: ModelFunction;
}

function expand(model: Model, calls: readonly CallSite[], round: number): Model {
  const inserted = new Map<number, Uint8Array[]>();
  const removed = new Set<GraphNode>();
  const opsets = new Map<string, number>();
  for (const [i, { node, callee }] of calls.entries()) {
    const names = namesOf(node, callee, `${callee.name}_${round}_${i}`);
    inserted.set(
      node.index,
      callee.body.nodes.map((inner) => renamed(inner, node, names, `${callee.name}_${round}_${i}`)),
    );
    removed.add(node);
    for (const [domain, version] of callee.opsets) if (!model.opsets.has(domain)) opsets.set(domain, version);
  }
  const edit: GraphEdit = {
    removed,
    inserted,
    removedInitializers: new Set(),
    removedValueInfo: new Set(),
    addedInitializers: [],
  };
  const pieces = modelPieces(model, {
    graphs: new Map([[model.graph, edit]]),
    irVersion: model.irVersion,
    opsets,
    functions: [],
    metadata: [],
  });
  return openModel(new PieceSource(model.source, pieces), model.external);
}

/** Values of the body by what they are called outside. */
function namesOf(node: GraphNode, callee: ModelFunction, prefix: string): (name: string) => string {
  const outer = new Map<string, string>();
  callee.inputs.forEach((input, i) => outer.set(input, node.inputs[i] ?? ''));
  callee.outputs.forEach((output, i) => {
    if (node.outputs[i] !== undefined && node.outputs[i] !== '') outer.set(output, node.outputs[i]);
  });
  return (name) => (name === '' ? '' : (outer.get(name) ?? `${prefix}/${name}`));
}

const encoder = new TextEncoder();

function textField(field: number, text: string): Uint8Array {
  const bytes = encoder.encode(text);
  return concatenate([fieldHeader(field, bytes.length), bytes]);
}

/** The node with its values renamed, and attributes of the call put in where the body refers to them. */
function renamed(
  node: GraphNode,
  call: GraphNode,
  names: (name: string) => string,
  prefix: string,
): Uint8Array {
  const out: Uint8Array[] = [];
  const { window } = node.graph;
  const cursor = new Cursor(window, node.span.start, node.span.end);
  const copy = (start: number, end: number): Uint8Array => Uint8Array.from(window.view(start, end));
  while (cursor.next()) {
    if (cursor.field === 1 || cursor.field === 2) out.push(textField(cursor.field, names(cursor.text())));
    else if (cursor.field === 3) out.push(textField(3, `${prefix}/${cursor.text()}`));
    else if (cursor.field === 5) out.push(...attributeBytes(cursor, call, names, prefix));
    else out.push(copy(cursor.fieldStart, cursor.end));
  }
  return concatenate(out);
}

/** The attribute, or that of the call where it refers to one; nothing when the call does not give it. */
function attributeBytes(
  cursor: Cursor,
  call: GraphNode,
  names: (name: string) => string,
  prefix: string,
): Uint8Array[] {
  const { window } = cursor;
  const copy = (start: number, end: number): Uint8Array => Uint8Array.from(window.view(start, end));
  let name = '';
  let reference = '';
  const parts: Uint8Array[] = [];
  const entry = cursor.message();
  while (entry.next()) {
    if (entry.field === 1) name = entry.text();
    if (entry.field === 21) reference = entry.text();
    if (entry.field === 6) {
      const body = renamedGraph(entry.message(), call, names, prefix);
      parts.push(fieldHeader(6, body.length), body);
    } else parts.push(copy(entry.fieldStart, entry.end));
  }
  if (reference === '') {
    const whole = concatenate(parts);
    return [fieldHeader(5, whole.length), whole];
  }
  const given = call.attributes.find((attribute) => attribute.name === reference);
  if (given === undefined) return [];
  const value: Uint8Array[] = [textField(1, name)];
  const source = new Cursor(call.graph.window, given.span.start, given.span.end);
  while (source.next())
    if (source.field !== 1)
      value.push(Uint8Array.from(call.graph.window.view(source.fieldStart, source.end)));
  const whole = concatenate(value);
  return [fieldHeader(5, whole.length), whole];
}

/** A body inside of a function: its nodes, inputs and outputs take part in the renaming. */
function renamedGraph(
  cursor: Cursor,
  call: GraphNode,
  names: (name: string) => string,
  prefix: string,
): Uint8Array {
  const out: Uint8Array[] = [];
  const { window } = cursor;
  while (cursor.next()) {
    if (cursor.field === 1) {
      const holder = new Graph(window, cursor.span, null, '', 0);
      const node = readNode(cursor.message(), cursor.span, holder);
      const bytes = renamed(node, call, names, prefix);
      out.push(fieldHeader(1, bytes.length), bytes);
    } else if (cursor.field === 5 || (cursor.field >= 11 && cursor.field <= 13)) {
      const bytes = renamedName(cursor, cursor.field === 5 ? 8 : 1, names);
      out.push(fieldHeader(cursor.field, bytes.length), bytes);
    } else out.push(Uint8Array.from(window.view(cursor.fieldStart, cursor.end)));
  }
  return concatenate(out);
}

/** A message whose name, in the given field, is a value's. */
function renamedName(cursor: Cursor, nameField: number, names: (name: string) => string): Uint8Array {
  const entry = cursor.message();
  const parts: Uint8Array[] = [];
  while (entry.next()) {
    if (entry.field === nameField) parts.push(textField(nameField, names(entry.text())));
    else parts.push(Uint8Array.from(cursor.window.view(entry.fieldStart, entry.end)));
  }
  return concatenate(parts);
}

/** A list of pieces read as one source. */
export class PieceSource implements ByteSource {
  readonly size: number;
  private readonly starts: number[] = [];

  constructor(
    private readonly source: ByteSource,
    private readonly pieces: readonly Piece[],
  ) {
    let at = 0;
    for (const piece of pieces) {
      this.starts.push(at);
      at += piecesSize([piece]);
    }
    this.size = at;
  }

  read(start: number, end: number): Uint8Array {
    const out = new Uint8Array(end - start);
    for (let index = this.indexAt(start); index < this.pieces.length && this.starts[index]! < end; index++) {
      const piece = this.pieces[index]!;
      const base = this.starts[index]!;
      const from = Math.max(start, base) - base;
      const to = Math.min(end - base, piecesSize([piece]));
      out.set(this.part(piece, from, to), base + from - start);
    }
    return out;
  }

  private part(piece: Piece, from: number, to: number): Uint8Array {
    if (piece instanceof Uint8Array) return piece.subarray(from, to);
    const span: Span = piece;
    return this.source.read(span.start + from, span.start + to);
  }

  /** The piece that holds the position. */
  private indexAt(position: number): number {
    let low = 0;
    let high = this.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle]! <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
