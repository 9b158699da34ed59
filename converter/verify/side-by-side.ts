/**
 * The original and, beside it in one model, what a conversion put into the places of its sites, fed with the original's own
 * values. A model that rounds to integers or chooses at run time turns differences in the last digits into large ones further
 * on; here nothing is further on. When every value that a conversion makes anew equals the one in whose place it stands, so
 * does each value behind it but for such differences.
 */
import proto from 'onnx-proto';
import type { Graph } from '../graph/graph.js';
import { intAttribute, nodeLabel, type GraphNode } from '../graph/node.js';
import type { Model } from '../onnx/model.js';
import { concatenate, fieldHeader } from '../onnx/wire.js';
import { graphParts, type Variant } from './variant.js';

const MODEL_GRAPH = 7;
const GRAPH_NODE = 1;
const GRAPH_INITIALIZER = 5;
const GRAPH_OUTPUT = 12;

/** A value of the original, and the value of the conversion that stands in its place. */
export interface ValuePair {
  readonly original: string;
  readonly converted: string;
}

export interface SideBySide {
  readonly bytes: Uint8Array;
  readonly pairs: readonly ValuePair[];
}

const CHOICES: ReadonlySet<string> = new Set([
  'ArgMax',
  'ArgMin',
  'DynamicQuantizeLinear',
  'DynamicQuantizeLSTM',
  'DynamicQuantizeMatMul',
  'NonMaxSuppression',
  'QAttention',
  'QuantizeLinear',
  'Round',
  'TopK',
]);

/** A node that rounds or chooses, so that the last digit of its input can matter; `null` without one. */
export function choosingNode({ nodes }: Graph): string | null {
  const rounds = (node: GraphNode): boolean =>
    node.opType === 'MatMulNBits' && intAttribute(node, 'accuracy_level', 0) === 4;
  for (const node of nodes) {
    if (CHOICES.has(node.opType) || rounds(node)) return `'${nodeLabel(node)}' (${node.opType})`;
    for (const body of node.subgraphs) {
      const inside = choosingNode(body);
      if (inside !== null) return inside;
    }
  }
  return null;
}

/** @param variant changes of the original */
export function sideBySide(original: Model, variant: Variant, converted: Model): SideBySide {
  const names = new Set(original.graph.names());
  const signature = ({ domain, opType, inputs, outputs }: GraphNode): string =>
    JSON.stringify([domain, opType, inputs, outputs]);
  const old = new Set(original.graph.nodes.map(signature));
  const added = converted.graph.nodes.filter((node) => !old.has(signature(node)));
  const pairs: ValuePair[] = [];
  const parts: Uint8Array[] = [];
  const push = (field: number, body: Uint8Array): void => {
    parts.push(fieldHeader(field, body.length), body);
  };
  for (const node of added) {
    const { start, end } = node.span;
    const message = proto.onnx.NodeProto.decode(converted.source.read(start, end));
    message.output = message.output.map((name) => {
      if (name === '' || !names.has(name)) return name;
      const renamed = `beside the original/${name}`;
      pairs.push({ original: name, converted: renamed });
      return renamed;
    });
    push(GRAPH_NODE, proto.onnx.NodeProto.encode(message).finish());
  }
  for (const { field, fieldStart, span, name } of converted.graph.fields) {
    if (field !== GRAPH_INITIALIZER || original.graph.initializers.has(name)) continue;
    parts.push(converted.source.read(fieldStart, span.end));
  }
  const outputs = [...new Set([...(variant.outputs ?? []), ...pairs.map((pair) => pair.original)])];
  for (const { converted: name } of pairs)
    push(GRAPH_OUTPUT, proto.onnx.ValueInfoProto.encode({ name }).finish());

  const body = [...graphParts(original.graph, original, { ...variant, outputs }), ...parts];
  const length = body.reduce((sum, part) => sum + part.length, 0);
  const fields = converted.fields.flatMap(({ field, fieldStart, span }) =>
    field === MODEL_GRAPH
      ? [fieldHeader(MODEL_GRAPH, length), ...body]
      : [converted.source.read(fieldStart, span.end)],
  );
  return { bytes: concatenate(fields), pairs };
}
