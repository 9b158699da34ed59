/** One operator call of a graph, and its attributes, which are decoded when asked for. */
import { ModelFormatError } from '../onnx/error.js';
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

/**
 * The attribute `axis` as an index from 0; `fallback` where the node does not say.
 * @throws ModelFormatError when it is no axis of a tensor with `rank` axes
 */
export function axisAttribute(node: GraphNode, fallback: number, rank: number): number {
  return checkedAxis(node, intAttribute(node, 'axis', fallback), rank);
}

/** An axis that a node names, counted from the front. @throws ModelFormatError when there is no such axis */
export function checkedAxis(node: GraphNode, axis: number, rank: number): number {
  const index = axis < 0 ? axis + rank : axis;
  if (Number.isInteger(index) && index >= 0 && index < rank) return index;
  throw new ModelFormatError(
    `'${nodeLabel(node)}' names axis ${axis}, allowed are ${-rank} to ${rank - 1}`,
    node.span.start,
  );
}

/** The attribute `axis` of a Flatten, which may also name the place after the last axis. */
export function flattenAxis(node: GraphNode, rank: number): number {
  const axis = intAttribute(node, 'axis', 1);
  return axis === rank ? rank : checkedAxis(node, axis, rank);
}

/**
 * Axes of a Transpose: output axis `i` is input axis `result[i]`; reversed where the node does not say.
 * @throws ModelFormatError when `perm` is no permutation of `rank` axes
 */
export function permutation(node: GraphNode, rank: number): readonly number[] {
  const given = intsAttribute(node, 'perm');
  if (given === null) return Array.from({ length: rank }, (_, axis) => rank - 1 - axis);
  const isPermutation = given.length === rank && new Set(given).size === rank;
  if (isPermutation && given.every((axis) => Number.isInteger(axis) && axis >= 0 && axis < rank))
    return given;
  throw new ModelFormatError(
    `'${nodeLabel(node)}' has perm [${given.join(', ')}], a permutation of ${rank} axes is needed`,
    node.span.start,
  );
}

export function textAttribute(node: GraphNode, name: string, fallback: string): string {
  return attribute(node, name)?.text ?? fallback;
}

/** A node of the standard domain with this operator type. */
export function isOp(node: GraphNode, ...opTypes: string[]): boolean {
  return node.domain === '' && opTypes.includes(node.opType);
}

export type { Window };
