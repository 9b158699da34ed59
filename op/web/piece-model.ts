/**
 * Writes a piece of a model as a model of its own. Nodes, initializers and declarations are copied byte for byte; only the
 * inputs and outputs at the cuts are new.
 */

import type { Graph } from '../../converter/graph/graph.js';
import type { Model } from '../../converter/onnx/model.js';
import type { Span } from '../../converter/onnx/source.js';
import { concatenate, fieldHeader, varintBytes } from '../../converter/onnx/wire.js';
import { DOMAIN } from '../schema.js';
import type { Piece } from './split.js';

/** Type of a value at a cut: ONNX element type, and dimensions where they are known. */
export interface CutType {
  readonly dataType: number;
  /** `null` for a dimension that varies; `undefined` when not even the rank is known. */
  readonly dims: readonly (number | null)[] | undefined;
}

// Field numbers of onnx.proto.
const MODEL = { graph: 7, function: 25 } as const;
const GRAPH = {
  node: 1,
  name: 2,
  initializer: 5,
  input: 11,
  output: 12,
  valueInfo: 13,
  sparseInitializer: 15,
} as const;

/** @param typeOf the type of a value that comes from another piece or from an attention node */
export function pieceModel(model: Model, piece: Piece, typeOf: (name: string) => CutType): Uint8Array {
  const { graph, source } = model;
  const copy = ({ start, end }: Span): Uint8Array => source.read(start, end);
  const parts: Uint8Array[] = [];
  const keepsFunction = usesFunction(model, piece);
  for (const { field, fieldStart, span } of model.fields) {
    if (field === MODEL.graph) {
      const bytes = pieceGraph(graph, piece, copy, typeOf);
      parts.push(fieldHeader(MODEL.graph, bytes.length), bytes);
    } else if (field !== MODEL.function || keepsFunction(fieldStart))
      parts.push(copy({ start: fieldStart, end: span.end }));
  }
  return concatenate(parts);
}

/** Our own function is left out unless something inside a body or another function still calls it. */
function usesFunction(model: Model, piece: Piece): (fieldStart: number) => boolean {
  const calls = (graph: Graph): boolean =>
    graph.nodes.some((node) => node.domain === DOMAIN || node.subgraphs.some(calls));
  const called =
    piece.nodes.some(({ subgraphs }) => subgraphs.some(calls)) ||
    model.functions.some(({ body }) => calls(body));
  const own = new Set(
    model.functions.filter(({ domain }) => domain === DOMAIN).map(({ fieldStart }) => fieldStart),
  );
  return (fieldStart) => called || !own.has(fieldStart);
}

function pieceGraph(
  graph: Graph,
  piece: Piece,
  copy: (span: Span) => Uint8Array,
  typeOf: (name: string) => CutType,
): Uint8Array {
  const nodes = new Set(piece.nodes);
  const initializers = new Set(piece.initializers);
  const inputs = new Set(piece.inputs);
  const outputs = new Set(piece.outputs);
  const inner = new Set(piece.nodes.flatMap((node) => node.outputs).filter((name) => !outputs.has(name)));
  const parts: Uint8Array[] = [];
  for (const { field, span, fieldStart, name, node } of graph.fields) {
    const keep =
      (field === GRAPH.node && nodes.has(node!)) ||
      field === GRAPH.name ||
      ((field === GRAPH.initializer || field === GRAPH.sparseInitializer) && initializers.has(name)) ||
      (field === GRAPH.input && inputs.delete(name)) ||
      (field === GRAPH.output && outputs.delete(name)) ||
      (field === GRAPH.valueInfo && inner.has(name));
    if (keep) parts.push(copy({ start: fieldStart, end: span.end }));
  }
  for (const name of inputs) parts.push(...message(GRAPH.input, valueInfo(name, typeOf(name))));
  for (const name of outputs) parts.push(...message(GRAPH.output, nameField(name)));
  return concatenate(parts);
}

/** A model that returns its input, a float: enough to bring up a device. */
export function identityModel(): Uint8Array {
  const float: CutType = { dataType: 1, dims: [1] };
  const text = (field: number, value: string): Uint8Array[] =>
    message(field, new TextEncoder().encode(value));
  const node = concatenate([...text(1, 'x'), ...text(2, 'y'), ...text(4, 'Identity')]);
  const graph = concatenate([
    ...message(GRAPH.node, node),
    ...text(GRAPH.name, 'identity'),
    ...message(GRAPH.input, valueInfo('x', float)),
    ...message(GRAPH.output, valueInfo('y', float)),
  ]);
  const opset = integer(2, 17);
  return concatenate([integer(1, 8), ...message(MODEL.graph, graph), ...message(8, opset)]);
}

const message = (field: number, bytes: Uint8Array): Uint8Array[] => [fieldHeader(field, bytes.length), bytes];
const integer = (field: number, value: number): Uint8Array =>
  concatenate([varintBytes(8 * field), varintBytes(value)]);
const nameField = (name: string): Uint8Array => concatenate(message(1, new TextEncoder().encode(name)));

function valueInfo(name: string, { dataType, dims }: CutType): Uint8Array {
  const shape = dims?.flatMap((dim) => message(1, dim === null ? new Uint8Array() : integer(1, dim)));
  const tensor = concatenate([
    integer(1, dataType),
    ...(shape === undefined ? [] : message(2, concatenate(shape))),
  ]);
  return concatenate([nameField(name), ...message(2, concatenate(message(1, tensor)))]);
}
