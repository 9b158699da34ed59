/** One operator call of a graph, and its attributes, which are decoded when asked for. */
import type { Span, Window } from '../onnx/source.js';
import { readTensor, type StoredTensor } from '../onnx/tensor.js';
import { Cursor } from '../onnx/wire.js';
import type { Graph } from './graph.js';

export interface Attribute {
  readonly name: string;
  readonly span: Span;
}

export interface GraphNode {
  /** Place in `graph.nodes`. */
  readonly index: number;
  readonly graph: Graph;
  readonly name: string;
  readonly opType: string;
  /** '' for the standard domain. */
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: readonly Attribute[];
  /** Bodies of If, Loop, Scan. */
  readonly subgraphs: readonly Graph[];
  /** Bytes of the NodeProto, without its tag. */
  readonly span: Span;
}

/** What a reader sees in place of the node: its name, or its first output. */
export function nodeLabel(node: GraphNode): string {
  return node.name !== '' ? node.name : (node.outputs.find((name) => name !== '') ?? `#${node.index}`);
}

/** A decoded attribute; only the fields of its type are set. */
export interface AttributeValue {
  readonly float: number | null;
  readonly int: number | null;
  readonly text: string | null;
  readonly floats: readonly number[];
  readonly ints: readonly number[];
  readonly tensor: StoredTensor | null;
  /** The attribute takes its value from the enclosing function's attribute of this name. */
  readonly reference: string;
}

function readAttribute(cursor: Cursor): AttributeValue {
  let float: number | null = null;
  let int: number | null = null;
  let text: string | null = null;
  let tensor: StoredTensor | null = null;
  let reference = '';
  const floats: number[] = [];
  const ints: number[] = [];
  while (cursor.next()) {
    if (cursor.field === 2) float = cursor.float();
    else if (cursor.field === 3) int = cursor.integer();
    else if (cursor.field === 4) text = cursor.text();
    else if (cursor.field === 5) tensor = readTensor(cursor.message(), cursor.span);
    else if (cursor.field === 7) cursor.floats(floats);
    else if (cursor.field === 8) cursor.integers(ints);
    else if (cursor.field === 21) reference = cursor.text();
  }
  return { float, int, text, floats, ints, tensor, reference };
}

export function attribute(node: GraphNode, name: string): AttributeValue | null {
  const found = node.attributes.find((entry) => entry.name === name);
  if (found === undefined) return null;
  return readAttribute(new Cursor(node.graph.window, found.span.start, found.span.end));
}

export function intAttribute(node: GraphNode, name: string, fallback: number): number {
  return attribute(node, name)?.int ?? fallback;
}

export function floatAttribute(node: GraphNode, name: string, fallback: number): number {
  return attribute(node, name)?.float ?? fallback;
}

export function intsAttribute(node: GraphNode, name: string): readonly number[] | null {
  return attribute(node, name)?.ints ?? null;
}

export function textAttribute(node: GraphNode, name: string, fallback: string): string {
  return attribute(node, name)?.text ?? fallback;
}

/** A node of the standard domain with this operator type. */
export function isOp(node: GraphNode, ...opTypes: string[]): boolean {
  return node.domain === '' && opTypes.includes(node.opType);
}

export type { Window };
