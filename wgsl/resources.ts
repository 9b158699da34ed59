/** What the kernels keep on a device between calls: pipelines, uniform blocks and scratch memory. */

import { BLOCK, SUBGROUP } from './prefill-matrix.wgsl.js';
import type { Adapter } from './variants.js';

/** Uniform blocks kept; a call needs a few. */
const MAX_UNIFORMS = 512;
const SMALLEST_SCRATCH_BYTES = 1 << 16;

/** How many objects of a device are alive; for tests and for the curious. */
export interface ResourceCounts {
  readonly pipelines: number;
  readonly uniforms: number;
  readonly scratchBytes: number;
}

export interface PipelineDescription {
  /** The WGSL source. */
  readonly code: () => string;
  /** Tells sources apart. */
  readonly codeKey: string;
  readonly entryPoint: string;
  readonly constants: Readonly<Record<string, number | boolean>>;
}

/** A pipeline with the layout of its one bind group. */
export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** The limits that calls ask for. Copied once: reading them from a device is slow. */
export interface Limits {
  readonly bindingBytes: number;
  readonly bindingAlignment: number;
  readonly adapter: Adapter;
  readonly workgroupsPerDimension: number;
}

/** SwiftShader, Mesa's llvmpipe, Microsoft's WARP. */
function isSoftware({ vendor, architecture, description, isFallbackAdapter }: GPUAdapterInfo): boolean {
  return (
    isFallbackAdapter ||
    /swiftshader|llvmpipe|software|basic render/i.test(`${vendor} ${architecture} ${description}`)
  );
}

/** Of every subgroup; 0 where the device has none, or several sizes. */
function subgroupSize({ features, adapterInfo }: GPUDevice): number {
  const { subgroupMinSize, subgroupMaxSize } = adapterInfo;
  return features.has('subgroups') && subgroupMinSize === subgroupMaxSize ? subgroupMinSize : 0;
}

/** Of the feature chromium-experimental-subgroup-matrix, which this TypeScript does not know. */
interface MatrixInfo {
  readonly subgroupMatrixConfigs?: Iterable<{
    readonly componentType: string;
    readonly resultComponentType: string;
    readonly M: number;
    readonly N: number;
    readonly K: number;
  }>;
}

/** Whether the subgroups of a device are those that the kernels with matrix instructions are written for. */
function hasMatrices(device: GPUDevice): boolean {
  const { features, adapterInfo } = device;
  const names: ReadonlySet<string> = features;
  const { vendor } = adapterInfo;
  const configurations = [...((adapterInfo as MatrixInfo).subgroupMatrixConfigs ?? [])];
  return (
    ['chromium-experimental-subgroup-matrix', 'shader-f16'].every((name) => names.has(name)) &&
    subgroupSize(device) === SUBGROUP &&
    // Dawn in Node tells the configurations of adapters, not those of devices.
    (configurations.length === 0
      ? vendor === 'nvidia'
      : configurations.some(
          ({ componentType, resultComponentType, M, N, K }) =>
            componentType === 'f16' &&
            resultComponentType === 'f32' &&
            [M, N, K].every((size) => size === BLOCK),
        ))
  );
}

export class DeviceResources {
  readonly #device: GPUDevice;
  readonly limits: Limits;
  readonly #modules = new Map<string, GPUShaderModule>();
  readonly #pipelines = new Map<string, Pipeline>();
  /** In the order of last use. */
  readonly #uniforms = new Map<string, GPUBuffer>();
  readonly #scratch = new Map<string, GPUBuffer>();
  /** Bound where a call has no such tensor. */
  readonly absent: GPUBuffer;

  constructor(device: GPUDevice) {
    this.#device = device;
    const { limits } = device;
    this.limits = {
      bindingBytes: limits.maxStorageBufferBindingSize,
      bindingAlignment: limits.minStorageBufferOffsetAlignment,
      adapter: {
        workgroupBytes: limits.maxComputeWorkgroupStorageSize,
        workgroupInvocations: limits.maxComputeInvocationsPerWorkgroup,
        isSoftware: isSoftware(device.adapterInfo),
        subgroupSize: subgroupSize(device),
        hasMatrices: hasMatrices(device),
      },
      workgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    };
    this.absent = device.createBuffer({ label: 'absent input', size: 256, usage: GPUBufferUsage.STORAGE });
  }

  pipeline({ code, codeKey, entryPoint, constants }: PipelineDescription): Pipeline {
    const key = `${codeKey} ${Object.values(constants).join()}`;
    let pipeline = this.#pipelines.get(key);
    if (pipeline === undefined) {
      let module = this.#modules.get(codeKey);
      if (module === undefined) {
        module = this.#device.createShaderModule({ label: codeKey, code: code() });
        this.#modules.set(codeKey, module);
      }
      const numbers = Object.entries(constants).map(([name, value]) => [name, Number(value)] as const);
      const compiled = this.#device.createComputePipeline({
        label: key,
        layout: 'auto',
        compute: { module, entryPoint, constants: Object.fromEntries(numbers) },
      });
      pipeline = { pipeline: compiled, layout: compiled.getBindGroupLayout(0) };
      this.#pipelines.set(key, pipeline);
    }
    return pipeline;
  }

  /** A uniform buffer of this content. Contents recur from run to run, so that a repeated call writes nothing. */
  uniform(bytes: Uint8Array<ArrayBuffer>): GPUBuffer {
    const key = String.fromCharCode(...bytes);
    let buffer = this.#uniforms.get(key);
    if (buffer === undefined) {
      buffer = this.#device.createBuffer({
        label: 'attention problem',
        size: bytes.byteLength,
        usage: GPUBufferUsage.UNIFORM,
        mappedAtCreation: true,
      });
      new Uint8Array(buffer.getMappedRange()).set(bytes);
      buffer.unmap();
      if (this.#uniforms.size === MAX_UNIFORMS) {
        // Not destroyed: commands that are not yet submitted may use it.
        this.#uniforms.delete(this.#uniforms.keys().next().value!);
      }
    } else this.#uniforms.delete(key);
    this.#uniforms.set(key, buffer);
    return buffer;
  }

  /**
   * Memory for one purpose within a call. Calls share it: commands of a queue run in order. Sizes are powers of two, and
   * a buffer that was too small stays, because commands not yet submitted may use it.
   */
  scratch(purpose: string, bytes: number): GPUBuffer {
    let size = SMALLEST_SCRATCH_BYTES;
    while (size < bytes) size *= 2;
    size = Math.min(size, Math.max(bytes, this.limits.bindingBytes));
    const key = `${purpose} ${size}`;
    let buffer = this.#scratch.get(key);
    if (buffer === undefined) {
      buffer = this.#device.createBuffer({ label: purpose, size, usage: GPUBufferUsage.STORAGE });
      this.#scratch.set(key, buffer);
    }
    return buffer;
  }

  get counts(): ResourceCounts {
    return {
      pipelines: this.#pipelines.size,
      uniforms: this.#uniforms.size,
      scratchBytes: [...this.#scratch.values()].reduce((sum, { size }) => sum + size, 0),
    };
  }

  destroy(): void {
    for (const buffer of [...this.#uniforms.values(), ...this.#scratch.values(), this.absent])
      buffer.destroy();
    this.#uniforms.clear();
    this.#scratch.clear();
    this.#pipelines.clear();
    this.#modules.clear();
  }
}
