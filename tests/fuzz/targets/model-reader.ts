/** Opens hostile bytes as a model and decodes everything in it: attributes, tensors, nested bodies. */
import type { Graph } from '../../../converter/graph/graph.js';
import { attribute } from '../../../converter/graph/node.js';
import { ModelFormatError } from '../../../converter/onnx/error.js';
import { openModel, type Model } from '../../../converter/onnx/model.js';
import { MemorySource } from '../../../converter/onnx/source.js';
import { tensorNumbers, type StoredTensor } from '../../../converter/onnx/tensor.js';
import { Violation, type Target } from '../target.js';

const external = new MemorySource(new Uint8Array(256));

export const target: Target = {
  shape: 'protobuf',
  maxLength: 1 << 16,
  run(input) {
    const model = openModel(input, () => external);
    visit(model, model.graph);
    for (const local of model.functions) visit(model, local.body);
  },
  isClear: (error) =>
    (error as Error).name === ModelFormatError.prototype.name || error instanceof ModelFormatError,
};

function visit(model: Model, graph: Graph): void {
  for (const tensor of graph.initializers.values()) readNumbers(model, tensor);
  for (const node of graph.nodes) {
    if (node.graph !== graph) throw new Violation(`node '${node.name}' says it is in another graph`);
    for (const { name } of node.attributes) {
      const value = attribute(node, name);
      if (value?.tensor) readNumbers(model, value.tensor);
    }
    for (const input of node.inputs) {
      if (input !== '' && !graph.uses(input).includes(node)) throw new Violation(`'${input}' lacks a use`);
    }
    for (const body of node.subgraphs) visit(model, body);
  }
}

/** One tensor that cannot be read does not keep the others from being read. */
function readNumbers(model: Model, tensor: StoredTensor): void {
  try {
    const numbers = tensorNumbers(tensor, model.source, model.external);
    if (numbers !== null && tensor.dims.some((dim) => dim < 0)) {
      throw new Violation(`tensor of shape [${tensor.dims.join(', ')}] has ${numbers.length} numbers`);
    }
  } catch (error) {
    if (!target.isClear(error)) throw error;
  }
}
