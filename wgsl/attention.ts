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
import { DispatchEncoder } from './encode.js';
import { DeviceResources, type ResourceCounts } from './resources.js';
import type { GpuInputs, GpuOutputs, GpuTensor } from './tensor.js';

/** Bounds on what a dispatch may use; those of the device when absent. */
export interface KernelOptions {
  /** Of one storage binding. */
  readonly maxBindingBytes?: number;
  readonly maxWorkgroupBytes?: number;
}

/** Name and dimensions of each output of a call. */
export interface OutputShapes {
  readonly Y: readonly number[];
  readonly present_key: readonly number[];
  readonly present_value: readonly number[];
}

/** The kernels of one device. They create their pipelines when first needed and keep them until {@link destroy}. */
export class SigmoidAttentionKernels {
  readonly device: GPUDevice;
  readonly #resources: DeviceResources;
  readonly #options: KernelOptions;

  constructor(device: GPUDevice, options: KernelOptions = {}) {
    this.device = device;
    this.#resources = new DeviceResources(device);
    this.#options = options;
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
    const sizes = checkCall(inputs, attributes);
    if (sizes.type === 'float16' && !this.device.features.has('shader-f16'))
      throw new ArgumentError(
        'Q has type float16; on this device it must be float (shader-f16 is not available)',
      );
    checkOutputs(outputs, inputs, sizes);
    new DispatchEncoder(this.device, this.#resources, this.#options, {
      inputs,
      outputs,
      attributes,
      sizes,
    }).encode(encoder);
  }

  get counts(): ResourceCounts {
    return this.#resources.counts;
  }

  /** Frees all GPU memory that the kernels hold. Commands that use it must have been submitted. */
  destroy(): void {
    this.#resources.destroy();
  }
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
