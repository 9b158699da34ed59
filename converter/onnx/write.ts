/**
 * Writes a changed model as a list of pieces: byte ranges of the source copied as they are, and new messages in between. Only
 * lengths of enclosing messages are written anew.
 */
import type { Graph } from '../graph/graph.js';
import type { GraphNode } from '../graph/node.js';
import type { Model, ModelFunction } from './model.js';
import type { ByteSource, Span } from './source.js';
import { concatenate, Cursor, fieldHeader, varintBytes } from './wire.js';

export type Piece = Span | Uint8Array;

/** What changes in one graph or function body. */
export interface GraphEdit {
  readonly removed: ReadonlySet<GraphNode>;
  /** Encoded nodes to put before the node with this index. */
  readonly inserted: ReadonlyMap<number, readonly Uint8Array[]>;
  readonly removedInitializers: ReadonlySet<string>;
  readonly removedValueInfo: ReadonlySet<string>;
  /** Encoded TensorProtos. */
  readonly addedInitializers: readonly Uint8Array[];
}

export interface ModelEdit {
  readonly graphs: ReadonlyMap<Graph, GraphEdit>;
  readonly irVersion: number;
  /** Operator sets to import besides those of the model. */
  readonly opsets: ReadonlyMap<string, number>;
  /** Encoded FunctionProtos to add. */
  readonly functions: readonly Uint8Array[];
  /** Functions of this domain are left out. */
  readonly droppedDomain?: string;
  /** Encoded StringStringEntryProtos to add. */
  readonly metadata: readonly Uint8Array[];
}

const MODEL = { irVersion: 1, graph: 7, opsetImport: 8, metadata: 14, functions: 25 } as const;
const GRAPH = { node: 1, initializer: 5, valueInfo: 13, sparseInitializer: 15 } as const;
const NODE_ATTRIBUTE = 5;
const ATTRIBUTE_GRAPHS: ReadonlySet<number> = new Set([6, 11]);
const FUNCTION = { node: 7, opsetImport: 9 } as const;

export function modelPieces(model: Model, edit: ModelEdit): Piece[] {
  const out = new PieceList();
  let wroteVersion = false;
  for (const field of model.fields) {
    if (field.field === MODEL.irVersion) {
      wroteVersion = true;
      out.add(irVersionField(edit.irVersion));
    } else if (field.field === MODEL.graph && isTouched(model.graph, edit.graphs)) {
      out.addMessage(MODEL.graph, graphPieces(model.graph, edit.graphs));
    } else if (field.field === MODEL.functions) {
      const owner = model.functions.find((entry) => entry.fieldStart === field.fieldStart);
      if (owner !== undefined && owner.domain === edit.droppedDomain) continue;
      if (owner !== undefined && isTouched(owner.body, edit.graphs))
        out.addMessage(MODEL.functions, functionPieces(owner, edit));
      else out.add({ start: field.fieldStart, end: field.span.end });
    } else out.add({ start: field.fieldStart, end: field.span.end });
  }
  if (!wroteVersion) out.add(irVersionField(edit.irVersion));
  for (const [domain, version] of edit.opsets)
    out.addMessage(MODEL.opsetImport, [opsetMessage(domain, version)]);
  for (const entry of edit.metadata) out.addMessage(MODEL.metadata, [entry]);
  for (const entry of edit.functions) out.addMessage(MODEL.functions, [entry]);
  return out.pieces;
}

function irVersionField(version: number): Uint8Array {
  return concatenate([varintBytes(MODEL.irVersion * 8), varintBytes(version)]);
}

function opsetMessage(domain: string, version: number): Uint8Array {
  const name = new TextEncoder().encode(domain);
  return concatenate([fieldHeader(1, name.length), name, varintBytes(2 * 8), varintBytes(version)]);
}

/** The graph or a body within it changes. */
function isTouched(graph: Graph, edits: ModelEdit['graphs']): boolean {
  if (edits.has(graph)) return true;
  return graph.nodes.some((node) => node.subgraphs.some((body) => isTouched(body, edits)));
}

function graphPieces(graph: Graph, edits: ModelEdit['graphs']): Piece[] {
  const edit = edits.get(graph);
  const out = new PieceList();
  for (const { field, span, fieldStart, name, node } of graph.fields) {
    const whole: Span = { start: fieldStart, end: span.end };
    if (field === GRAPH.node && node !== null) addNode(out, GRAPH.node, node, whole, edit, edits);
    else if (
      (field === GRAPH.initializer || field === GRAPH.sparseInitializer) &&
      edit?.removedInitializers.has(name) === true
    )
      continue;
    else if (field === GRAPH.valueInfo && edit?.removedValueInfo.has(name) === true) continue;
    else out.add(whole);
  }
  for (const tensor of edit?.addedInitializers ?? []) out.addMessage(GRAPH.initializer, [tensor]);
  return out.pieces;
}

function addNode(
  out: PieceList,
  field: number,
  node: GraphNode,
  whole: Span,
  edit: GraphEdit | undefined,
  edits: ModelEdit['graphs'],
): void {
  for (const bytes of edit?.inserted.get(node.index) ?? []) out.addMessage(field, [bytes]);
  if (edit?.removed.has(node) === true) return;
  if (node.subgraphs.some((body) => isTouched(body, edits))) out.addMessage(field, nodePieces(node, edits));
  else out.add(whole);
}

/** A node whose bodies change: everything but these is copied. */
function nodePieces(node: GraphNode, edits: ModelEdit['graphs']): Piece[] {
  const out = new PieceList();
  const cursor = new Cursor(node.graph.window, node.span.start, node.span.end);
  while (cursor.next()) {
    const whole: Span = { start: cursor.fieldStart, end: cursor.end };
    if (cursor.field !== NODE_ATTRIBUTE) {
      out.add(whole);
      continue;
    }
    const inner = new PieceList();
    const entry = cursor.message();
    let changes = false;
    while (entry.next()) {
      const body = ATTRIBUTE_GRAPHS.has(entry.field)
        ? node.subgraphs.find(({ span }) => span.start === entry.start)
        : undefined;
      if (body !== undefined && isTouched(body, edits)) {
        changes = true;
        inner.addMessage(entry.field, graphPieces(body, edits));
      } else inner.add({ start: entry.fieldStart, end: entry.end });
    }
    if (changes) out.addMessage(NODE_ATTRIBUTE, inner.pieces);
    else out.add(whole);
  }
  return out.pieces;
}

function functionPieces(owner: ModelFunction, edit: ModelEdit): Piece[] {
  const out = new PieceList();
  const change = edit.graphs.get(owner.body);
  for (const { field, span, fieldStart, node } of owner.body.fields) {
    const whole: Span = { start: fieldStart, end: span.end };
    if (field === FUNCTION.node && node !== null)
      addNode(out, FUNCTION.node, node, whole, change, edit.graphs);
    else out.add(whole);
  }
  for (const [domain, version] of edit.opsets) {
    if (!owner.opsets.has(domain)) out.addMessage(FUNCTION.opsetImport, [opsetMessage(domain, version)]);
  }
  return out.pieces;
}

/** Pieces in order; neighbouring ranges of the source are joined. */
class PieceList {
  readonly pieces: Piece[] = [];

  add(piece: Piece): void {
    const last = this.pieces.at(-1);
    if (
      last !== undefined &&
      !(last instanceof Uint8Array) &&
      !(piece instanceof Uint8Array) &&
      last.end === piece.start
    ) {
      this.pieces[this.pieces.length - 1] = { start: last.start, end: piece.end };
    } else this.pieces.push(piece);
  }

  addMessage(field: number, content: readonly Piece[]): void {
    this.add(fieldHeader(field, piecesSize(content)));
    for (const piece of content) this.add(piece);
  }
}

export function piecesSize(pieces: readonly Piece[]): number {
  return pieces.reduce(
    (sum, piece) => sum + (piece instanceof Uint8Array ? piece.length : piece.end - piece.start),
    0,
  );
}

/** Bytes of the source that are handed on at a time. */
const CHUNK_BYTES = 1 << 24;

export function* pieceBytes(source: ByteSource, pieces: readonly Piece[]): Iterable<Uint8Array> {
  for (const piece of pieces) {
    if (piece instanceof Uint8Array) yield piece;
    else {
      for (let start = piece.start; start < piece.end; start += CHUNK_BYTES) {
        yield source.read(start, Math.min(piece.end, start + CHUNK_BYTES));
      }
    }
  }
}
