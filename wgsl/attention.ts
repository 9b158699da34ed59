/**
 * SigmoidAttention on tensors in GPU buffers: checks a call, chooses kernels for it and encodes them. Meaning, shapes and
 * constraints are those of docs/operator.md.
 */

import {
  type AttentionInputs,
  type AttentionSizes,
  ArgumentError,
  checkArguments,
} from '../op/constraints.js';
import { type Attributes, INPUTS, type InputName } from '../op/schema.js';
import { sizeOf, type Tensor } from '../op/tensor.js';
import { BindGroups } from './bind-groups.js';
import { type CallPlan, CallPlanner } from './plan-call.js';
import { DeviceResources, type ResourceCounts } from './resources.js';
import type { Adapter } from './variants.js';
import type { CallTensor, GpuInputs, GpuOutputs, GpuTensor, Role } from './tensor.js';

/** What a dispatch may use; all that the device has when absent. */
export interface KernelOptions {
  /** Of one storage binding. */
  readonly maxBindingBytes?: number;
  /** Taken for the choice of kernels instead of what the device says of itself. */
  readonly adapter?: Partial<Adapter>;
}

/** Name and dimensions of each output of a call. */
export interface OutputShapes {
  readonly Y: readonly number[];
  readonly present_key: readonly number[];
  readonly present_value: readonly number[];
}

/** Forms of calls that are remembered. */
const MAX_PLANS = 128;

/** The kernels of one device. They create their pipelines when first needed and keep them until {@link destroy}. */
export class SigmoidAttentionKernels {
  readonly device: GPUDevice;
  readonly #resources: DeviceResources;
  readonly #options: KernelOptions;
  readonly #bindGroups: BindGroups;
  readonly #hasFloat16: boolean;
  /** By what they depend on, in the order of last use. */
  readonly #plans = new Map<string, CallPlan>();

  constructor(device: GPUDevice, options: KernelOptions = {}) {
    this.device = device;
    this.#resources = new DeviceResources(device);
    this.#options = options;
    this.#bindGroups = new BindGroups(device);
    this.#hasFloat16 = device.features.has('shader-f16');
  }

  /**
   * Appends the commands of one call to `encoder`, which must have no open pass. Nothing is read back. Submit before
   * another call encodes with a different encoder, since calls share scratch memory.
   *
   * Throws an ArgumentError when a constraint of the operator is violated; values of nonpad_kv_seqlen cannot be seen
   * here and are clamped to [0, Nk].
   */
  encode(
    encoder: GPUCommandEncoder,
    inputs: GpuInputs,
    outputs: GpuOutputs,
    attributes: Attributes = {},
  ): void {
    const plan = this.#plan(inputs, outputs, attributes);
    const { clearBytes, steps } = plan;
    if (clearBytes > 0) encoder.clearBuffer(outputs.Y.buffer, outputs.Y.offset ?? 0, clearBytes);
    if (steps.length === 0) return;
    const groups = this.#bindGroups.of(
      plan,
      (role) => (outputs[role as keyof GpuOutputs] ?? inputs[role as InputName])!.buffer,
    );
    const pass = encoder.beginComputePass({ label: 'SigmoidAttention' });
    steps.forEach(({ pipeline, grid }, index) => {
      pass.setPipeline(pipeline.pipeline);
      pass.setBindGroup(0, groups[index]!);
      pass.dispatchWorkgroups(...grid);
    });
    pass.end();
  }

  /** The plan of a call; checked and made once for all calls of the same form. */
  #plan(inputs: GpuInputs, outputs: GpuOutputs, attributes: Attributes): CallPlan {
    const key = formOf(inputs, outputs, attributes);
    let plan = this.#plans.get(key);
    if (plan !== undefined) {
      this.#plans.delete(key);
      this.#plans.set(key, plan);
      return plan;
    }
    const sizes = checkCall(inputs, attributes);
    if (sizes.type === 'float16' && !this.#hasFloat16)
      throw new ArgumentError(
        'Q has type float16; on this device it must be float (shader-f16 is not available)',
      );
    checkOutputs(outputs, inputs, sizes);
    const call = {
      inputs: withoutBuffers<InputName>(inputs),
      outputs: withoutBuffers<keyof GpuOutputs>({ ...outputs }) as { Y: CallTensor },
      attributes,
      sizes,
    };
    plan = new CallPlanner(this.#resources, this.#options, call).plan();
    if (this.#plans.size === MAX_PLANS) this.#plans.delete(this.#plans.keys().next().value!);
    this.#plans.set(key, plan);
    return plan;
  }

  get counts(): ResourceCounts {
    return this.#resources.counts;
  }

  /** Frees all GPU memory that the kernels hold. Commands that use it must have been submitted. */
  destroy(): void {
    this.#plans.clear();
    this.#resources.destroy();
  }
}

type Tensors<Name extends Role> = { readonly [name in Name]?: GpuTensor };

/** Everything that a plan depends on. */
function formOf(inputs: GpuInputs, outputs: GpuOutputs, attributes: Attributes): string {
  let form = '';
  for (const tensors of [inputs, outputs] as Tensors<Role>[])
    for (const role in tensors) {
      const tensor = tensors[role as Role];
      if (tensor !== undefined)
        form += `${role} ${tensor.type} ${tensor.dims.join()} ${tensor.offset ?? 0} ${tensor.buffer.size};`;
    }
  for (const name in attributes) form += `${name} ${attributes[name as keyof Attributes]};`;
  return form;
}

function withoutBuffers<Name extends Role>(tensors: Tensors<Name>): { [name in Name]?: CallTensor } {
  const described: { [name in Name]?: CallTensor } = {};
  for (const role in tensors) {
    const tensor = tensors[role];
    if (tensor === undefined) continue;
    const { type, dims, offset = 0, buffer } = tensor;
    described[role] = { role, type, dims: [...dims], offset, bufferBytes: buffer.size };
  }
  return described;
}

/** The output shapes of a call; throws an ArgumentError when a constraint is violated. */
export function outputShapes(inputs: GpuInputs, attributes: Attributes): OutputShapes {
  return shapesOf(checkCall(inputs, attributes));
}

function shapesOf(sizes: AttentionSizes): OutputShapes {
  const { rank, batch, queryHeads, kvHeads, queryLength, keyLength, headSize, valueHeadSize } = sizes;
  return {
    Y:
      rank === 4
        ? [batch, queryHeads, queryLength, valueHeadSize]
        : [batch, queryLength, queryHeads * valueHeadSize],
    present_key: [batch, kvHeads, keyLength, headSize],
    present_value: [batch, kvHeads, keyLength, valueHeadSize],
  };
}

/** The constraints on shapes, types and attributes need no data, so that the tensors are given empty ones. */
function checkCall(inputs: GpuInputs, attributes: Attributes): AttentionSizes {
  const described: { [name in InputName]?: Tensor } = {};
  for (const { name } of INPUTS) {
    const tensor = inputs[name];
    if (tensor !== undefined) described[name] = withoutData(tensor);
  }
  return checkArguments(described satisfies AttentionInputs, attributes);
}

function withoutData({ type, dims }: GpuTensor): Tensor {
  switch (type) {
    case 'float':
      return { type, dims, data: new Float32Array() };
    case 'float16':
      return { type, dims, data: new Uint16Array() };
    case 'bool':
      return { type, dims, data: new Uint8Array() };
    case 'int64':
      return { type, dims, data: new BigInt64Array() };
  }
}

function checkOutputs(outputs: GpuOutputs, inputs: GpuInputs, sizes: AttentionSizes): void {
  for (const [name, dims] of Object.entries(shapesOf(sizes)) as [keyof OutputShapes, readonly number[]][]) {
    const tensor = outputs[name];
    if (tensor === undefined) continue;
    if (tensor.type !== inputs.Q!.type)
      throw new ArgumentError(`${name} has type ${tensor.type}; it must be ${inputs.Q!.type}, the type of Q`);
    if (tensor.dims.join() !== dims.join() || sizeOf(tensor.dims) !== sizeOf(dims))
      throw new ArgumentError(`${name} has shape [${tensor.dims.join(',')}]; it must be [${dims.join(',')}]`);
  }
}
