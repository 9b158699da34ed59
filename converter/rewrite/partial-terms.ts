/** Emits what nodes of the model make of zeros in place of the scores. */
import type { PartialTerms } from '../attention/partial-update.js';
import type { Emitter } from './emitter.js';
import type { Dimensions } from './relayout.js';

/** @param type number of TensorProto.DataType of the scores */
export function emitPartialTerms(
  terms: PartialTerms,
  type: number,
  dimensions: Dimensions,
  emitter: Emitter,
): void {
  const zeros = emitter.apply('Expand', [emitter.scalar(type, 0), dimensions.join(terms.axes)]);
  const names = new Map([[terms.source, zeros]]);
  for (const node of terms.nodes) {
    const outputs = node.outputs.map((name) =>
      name === terms.result ? terms.name : emitter.fresh(node.opType),
    );
    emitter.copy(
      node,
      node.inputs.map((name) => names.get(name) ?? name),
      outputs,
    );
    node.outputs.forEach((name, i) => names.set(name, outputs[i]!));
  }
}
