/**
 * Variants of a model for looking inside it: nodes exchanged, inner values as outputs, parts that nobody asked for left
 * out. Everything else is copied as bytes. Only the main graph is changed.
 */
import proto from 'onnx-proto';
import type { Graph } from '../graph/graph.js';
import type { GraphNode } from '../graph/node.js';
import type { Model } from '../onnx/model.js';
import { concatenate, fieldHeader } from '../onnx/wire.js';

export interface Variant {
  /** Nodes that stand in the place of another. */
  readonly exchange?: ReadonlyMap<GraphNode, readonly proto.onnx.INodeProto[]>;
  /** Constants to add; one of the model under the same name goes. */
  readonly initializers?: readonly proto.onnx.ITensorProto[];
  /** Inner values that become outputs of the model. */
  readonly outputs?: readonly string[];
  /** The model's own outputs go, and with them every node that `outputs` does not need. */
  readonly outputsOnly?: boolean;
}

const MODEL_GRAPH = 7;
const GRAPH_NODE = 1;
const GRAPH_INITIALIZER = 5;
const GRAPH_OUTPUT = 12;

/** The variant as the bytes of a model file; external data is referred to as before. */
export function variantOf(model: Model, variant: Variant): Uint8Array {
  const { graph, source } = model;
  const parts: Uint8Array[] = [];
  for (const field of model.fields) {
    if (field.field !== MODEL_GRAPH) {
      parts.push(source.read(field.fieldStart, field.span.end));
      continue;
    }
    const body = graphParts(graph, model, variant);
    const length = body.reduce((sum, part) => sum + part.length, 0);
    parts.push(fieldHeader(MODEL_GRAPH, length), ...body);
  }
  return concatenate(parts);
}

/** The fields of the variant's graph. */
export function graphParts(graph: Graph, model: Model, variant: Variant): Uint8Array[] {
  const exchange = variant.exchange ?? new Map<GraphNode, readonly proto.onnx.INodeProto[]>();
  const added = (variant.outputs ?? []).filter((name) => !graph.isOutput(name));
  const kept = variant.outputsOnly ? neededNodes(graph, exchange, variant.outputs ?? []) : null;
  const exchanged = new Set(variant.initializers?.map(({ name }) => name));
  const parts: Uint8Array[] = [];
  const push = (field: number, body: Uint8Array): void => {
    parts.push(fieldHeader(field, body.length), body);
  };
  for (const field of graph.fields) {
    if (field.node !== null) {
      if (kept && !kept.has(field.node)) continue;
      const stand = exchange.get(field.node);
      if (stand) {
        for (const node of stand) push(GRAPH_NODE, proto.onnx.NodeProto.encode(node).finish());
        continue;
      }
    } else if (field.field === GRAPH_INITIALIZER && exchanged.has(field.name)) {
      continue;
    } else if (field.field === GRAPH_OUTPUT && variant.outputsOnly) {
      if (!variant.outputs?.includes(field.name)) continue;
    }
    parts.push(model.source.read(field.fieldStart, field.span.end));
  }
  for (const tensor of variant.initializers ?? []) {
    push(GRAPH_INITIALIZER, proto.onnx.TensorProto.encode(tensor).finish());
  }
  for (const name of added) push(GRAPH_OUTPUT, proto.onnx.ValueInfoProto.encode({ name }).finish());
  return parts;
}

/** Nodes of the graph that the values depend on. */
function neededNodes(
  graph: Graph,
  exchange: ReadonlyMap<GraphNode, readonly proto.onnx.INodeProto[]>,
  outputs: readonly string[],
): Set<GraphNode> {
  const needed = new Set<GraphNode>();
  const open = [...outputs];
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    const node = graph.producer(name);
    if (!node || needed.has(node)) continue;
    needed.add(node);
    const stand = exchange.get(node);
    if (stand) for (const { input } of stand) open.push(...(input ?? []));
    else open.push(...node.inputs);
    for (const body of node.subgraphs) open.push(...body.names());
  }
  return needed;
}
