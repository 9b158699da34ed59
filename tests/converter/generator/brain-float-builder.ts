/**
 * Models in bfloat16 that ONNX Runtime can run on the CPU, where it computes in float only: every operator is wrapped in
 * casts, so that each result is rounded to bfloat16 as a kernel for that type would round it. Inputs and outputs are float.
 */
import {
  BFLOAT16,
  FLOAT,
  ModelBuilder,
  type AttributeValue,
  type Dim,
} from '../../../proving/model-builder.js';

/** These only move numbers, and take bfloat16 on the CPU. */
const MOVING: ReadonlySet<string> = new Set([
  'Reshape',
  'Transpose',
  'Concat',
  'Gather',
  'Squeeze',
  'Unsqueeze',
  'Identity',
]);

const LOGICAL: ReadonlySet<string> = new Set([
  'Shape',
  'IsNaN',
  'Less',
  'Greater',
  'Equal',
  'Not',
  'And',
  'Or',
]);

/** The name under which the model takes or yields a value of bfloat16 as float. */
export function floatName(name: string): string {
  return `${name}_float`;
}

export class BrainFloatBuilder extends ModelBuilder {
  /** Values in bfloat16. */
  private readonly narrow = new Set<string>();
  private readonly reported: string[] = [];

  override input(name: string, type: number, dims: readonly Dim[]): string {
    if (type !== BFLOAT16) return super.input(name, type, dims);
    super.input(floatName(name), FLOAT, dims);
    this.cast(floatName(name), BFLOAT16, name);
    return name;
  }

  override output(name: string, type: number = FLOAT): void {
    if (type === BFLOAT16) this.reported.push(name);
    else super.output(name, type);
  }

  override constant(type: number, dims: readonly number[], values: readonly number[], name?: string): string {
    const constant = super.constant(type, dims, values, name);
    if (type === BFLOAT16) this.narrow.add(constant);
    return constant;
  }

  override node(
    opType: string,
    inputs: readonly string[],
    outputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    domain = '',
  ): void {
    const isNarrow = inputs.some((name) => this.narrow.has(name));
    const plain = !isNarrow || opType === 'Cast' || opType === 'Shape' || MOVING.has(opType);
    if (plain) {
      super.node(opType, inputs, outputs, attributes, domain);
      const staysNarrow = opType === 'Cast' ? attributes['to'] === BFLOAT16 : isNarrow && opType !== 'Shape';
      if (staysNarrow) for (const name of outputs) this.narrow.add(name);
      return;
    }
    const wide = inputs.map((name) => (this.narrow.has(name) ? this.cast(name, FLOAT) : name));
    if (LOGICAL.has(opType)) {
      super.node(opType, wide, outputs, attributes, domain);
      return;
    }
    const results = outputs.map((name) => `${name}_wide`);
    super.node(opType, wide, results, attributes, domain);
    results.forEach((name, i) => this.cast(name, BFLOAT16, outputs[i]));
  }

  override toBytes(): Uint8Array {
    for (const name of this.reported.splice(0)) {
      this.cast(name, FLOAT, floatName(name));
      super.output(floatName(name), FLOAT);
    }
    return super.toBytes();
  }

  private cast(name: string, to: number, output?: string): string {
    return this.op('Cast', [name], { to }, output);
  }
}
