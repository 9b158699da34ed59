/** Our kernels on a device: results, and time of one call as the slope over calls in one submission. */

import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import type { GpuTensor } from '../../wgsl/tensor.js';
import { numberToFloat16 } from '../../op/half.js';
import { attributesOf } from './models.js';
import type { BenchShape } from './shapes.js';

export interface HostData {
  readonly x: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** Numbers of deviation about 1, the same everywhere. */
export function hostData({ heads, queryLength, keyLength, headSize }: BenchShape): HostData {
  const width = heads * headSize;
  const wave = (count: number, phase: number): Float32Array =>
    Float32Array.from({ length: count }, (_, i) => 1.4 * Math.sin(12.9898 * i + phase * (1 + (i % 7))));
  return { x: wave(queryLength * width, 1), k: wave(keyLength * width, 2), v: wave(keyLength * width, 3) };
}

export function bytesOf(values: Float32Array, type: BenchShape['type']): Float32Array | Uint16Array {
  return type === 'f32' ? values : Uint16Array.from(values, numberToFloat16);
}

export class KernelBench {
  readonly device: GPUDevice;
  readonly #kernels: SigmoidAttentionKernels;

  constructor(device: GPUDevice) {
    this.device = device;
    this.#kernels = new SigmoidAttentionKernels(device);
  }

  tensor(values: Float32Array, shape: BenchShape, length: number): GpuTensor {
    const data = bytesOf(values, shape.type);
    const buffer = this.device.createBuffer({
      size: data.byteLength,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      mappedAtCreation: true,
    });
    new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer));
    buffer.unmap();
    return {
      buffer,
      type: shape.type === 'f32' ? 'float' : 'float16',
      dims: [1, length, shape.heads * shape.headSize],
    };
  }

  /** A function that runs `calls` calls in one submission and returns their milliseconds; and the result. */
  prepare(shape: BenchShape): {
    run(calls: number): Promise<number>;
    result(): Promise<ArrayBuffer>;
    free(): void;
  } {
    const data = hostData(shape);
    const Q = this.tensor(data.x, shape, shape.queryLength);
    const K = this.tensor(data.k, shape, shape.keyLength);
    const V = this.tensor(data.v, shape, shape.keyLength);
    const Y = this.tensor(data.x, shape, shape.queryLength);
    const run = async (calls: number): Promise<number> => {
      const start = performance.now();
      const encoder = this.device.createCommandEncoder();
      for (let call = 0; call < calls; call++)
        this.#kernels.encode(encoder, { Q, K, V }, { Y }, attributesOf(shape));
      this.device.queue.submit([encoder.finish()]);
      await this.device.queue.onSubmittedWorkDone();
      return performance.now() - start;
    };
    return {
      run,
      result: () => this.read(Y.buffer),
      free: () => [Q, K, V, Y].forEach(({ buffer }) => buffer.destroy()),
    };
  }

  async read(buffer: GPUBuffer): Promise<ArrayBuffer> {
    const staging = this.device.createBuffer({
      size: buffer.size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
    this.device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const copy = staging.getMappedRange().slice(0);
    staging.destroy();
    return copy;
  }

  /** Bytes a second that a plain copy reads. */
  async copyBandwidth(bytes: number): Promise<number> {
    const code = `
      @group(0) @binding(0) var<storage, read> source: array<vec4f>;
      @group(0) @binding(1) var<storage, read_write> target_: array<vec4f>;
      @compute @workgroup_size(256) fn copy(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) n: vec3u) {
        let i = id.x + id.y * n.x * 256u;
        target_[i] = source[i];
      }`;
    const buffer = (): GPUBuffer => this.device.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE });
    const [source, target] = [buffer(), buffer()];
    const module = this.device.createShaderModule({ code });
    const pipeline = this.device.createComputePipeline({
      layout: 'auto',
      compute: { module, entryPoint: 'copy' },
    });
    const group = this.device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [source, target].map((resource, binding) => ({ binding, resource: { buffer: resource } })),
    });
    const groups = bytes / 16 / 256;
    const x = Math.min(groups, 32768);
    const milliseconds = await slope(
      async (copies) => {
        const start = performance.now();
        const encoder = this.device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        for (let copy = 0; copy < copies; copy++) pass.dispatchWorkgroups(x, Math.ceil(groups / x));
        pass.end();
        this.device.queue.submit([encoder.finish()]);
        await this.device.queue.onSubmittedWorkDone();
        return performance.now() - start;
      },
      [5, 45],
    );
    source.destroy();
    target.destroy();
    return (bytes * 2) / (milliseconds / 1000);
  }
}

/** Milliseconds of one repetition: the median over rounds of the slope between two lengths. */
export async function slope(
  run: (repetitions: number) => Promise<number>,
  [few, many]: readonly [number, number],
  rounds = 5,
): Promise<number> {
  await run(few);
  await run(many);
  const slopes: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const short = await run(few);
    const long = await run(many);
    slopes.push((long - short) / (many - few));
  }
  return slopes.sort((a, b) => a - b)[rounds >> 1]!;
}
