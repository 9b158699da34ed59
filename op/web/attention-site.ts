/** What a SigmoidAttention node of a model says: its attributes, inputs and outputs by name. */

import { attribute, type GraphNode, nodeLabel } from '../../converter/graph/node.js';
import { ATTRIBUTES, type Attributes, type InputName, INPUTS, OUTPUTS } from '../schema.js';

export type OutputName = (typeof OUTPUTS)[number]['name'];

export interface AttentionSite {
  readonly label: string;
  readonly attributes: Attributes;
  /** The value that each given input reads. */
  readonly inputs: ReadonlyMap<InputName, string>;
  /** The value that each output yields, where something reads it. */
  readonly outputs: ReadonlyMap<OutputName, string>;
}

export function attentionSite(node: GraphNode): AttentionSite {
  const given = <Name>(names: readonly Name[], values: readonly string[]): Map<Name, string> =>
    new Map(values.flatMap((value, index) => (value === '' ? [] : [[names[index]!, value] as const])));
  return {
    label: nodeLabel(node),
    attributes: attributesOf(node),
    inputs: given(
      INPUTS.map(({ name }) => name),
      node.inputs,
    ),
    outputs: given(
      OUTPUTS.map(({ name }) => name),
      node.outputs,
    ),
  };
}

const FLAGS: readonly string[] = ['is_causal', 'normalize'] satisfies (keyof Attributes)[];

function attributesOf(node: GraphNode): Attributes {
  const found: Record<string, unknown> = {};
  for (const { name, type } of ATTRIBUTES) {
    const value = attribute(node, name);
    if (value === null) continue;
    found[name] =
      type === 'string'
        ? value.text
        : type === 'float'
          ? value.float
          : FLAGS.includes(name)
            ? value.int !== 0
            : value.int;
  }
  return found satisfies Record<string, unknown> as Attributes;
}
