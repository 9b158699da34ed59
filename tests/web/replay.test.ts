/** Recording and repeating GPU commands, on commands written here as ONNX Runtime writes them. In Node, without the runtime. */

import { strict as assert } from 'node:assert';
import { BufferArena, BufferPool } from '../../op/web/buffers.js';
import { NotReplayable, recordCommands, watchPipelines } from '../../op/web/command-recorder.js';
import { flowOf, type GpuCommand } from '../../op/web/commands.js';
import { ReplayProgram } from '../../op/web/replay-program.js';
import { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import { chooseDriver, createGpu, requestDevice } from '../wgsl/device.js';

const LENGTH = 64;
const BYTES = 4 * LENGTH;

/** out = factor * (a + b) */
const SHADER = `
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> factor: vec4f;
@compute @workgroup_size(${LENGTH}) fn main(@builtin(local_invocation_index) i: u32) {
  out[i] = factor.x * (a[i] + b[i]);
}`;

/** The part of the runtime: pipelines, buffers that it uses again, pending commands. */
class Machine {
  readonly device: GPUDevice;
  readonly weights: GPUBuffer;
  readonly #layout: GPUBindGroupLayout;
  readonly #pipeline: GPUComputePipeline;
  readonly #uniform: GPUBuffer;

  constructor(device: GPUDevice, layout: 'explicit' | 'auto' = 'explicit') {
    this.device = device;
    const module = device.createShaderModule({ code: SHADER });
    const types = ['read-only-storage', 'read-only-storage', 'storage', 'uniform'] as const;
    const own = device.createBindGroupLayout({
      entries: types.map((type, binding) => ({
        binding,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type },
      })),
    });
    this.#pipeline = device.createComputePipeline({
      layout: layout === 'auto' ? 'auto' : device.createPipelineLayout({ bindGroupLayouts: [own] }),
      compute: { module, entryPoint: 'main' },
    });
    this.#layout = layout === 'auto' ? this.#pipeline.getBindGroupLayout(0) : own;
    this.#uniform = this.buffer(16, GPUBufferUsage.UNIFORM);
    this.weights = this.filled((i) => i);
  }

  buffer(size = BYTES, usage = GPUBufferUsage.STORAGE): GPUBuffer {
    return this.device.createBuffer({
      size,
      usage: usage | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
  }

  filled(value: (index: number) => number): GPUBuffer {
    const buffer = this.buffer();
    this.device.queue.writeBuffer(
      buffer,
      0,
      Float32Array.from({ length: LENGTH }, (_, i) => value(i)),
    );
    return buffer;
  }

  /** out = factor * (a + b); the uniform is the same buffer every time, so that each call is submitted. */
  add(a: GPUBuffer, b: GPUBuffer, out: GPUBuffer, factor: number): void {
    const { device } = this;
    device.queue.writeBuffer(this.#uniform, 0, Float32Array.of(factor, 0, 0, 0));
    const encoder = device.createCommandEncoder();
    const entries = [a, b, out, this.#uniform].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const pass = encoder.beginComputePass();
    pass.setPipeline(this.#pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: this.#layout, entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  /** Numbers of the CPU through a mapped buffer. */
  upload(to: GPUBuffer, value: number): void {
    const staging = this.device.createBuffer({
      size: BYTES,
      usage: GPUBufferUsage.MAP_WRITE | GPUBufferUsage.COPY_SRC,
      mappedAtCreation: true,
    });
    new Float32Array(staging.getMappedRange()).fill(value);
    staging.unmap();
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(staging, 0, to, 0, BYTES);
    this.device.queue.submit([encoder.finish()]);
    staging.destroy();
  }

  async read(buffer: GPUBuffer): Promise<number[]> {
    const readable = this.device.createBuffer({
      size: BYTES,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, readable, 0, BYTES);
    this.device.queue.submit([encoder.finish()]);
    await readable.mapAsync(GPUMapMode.READ);
    return [...new Float32Array(readable.getMappedRange().slice(0))];
  }
}

async function commandsOf(device: GPUDevice, work: () => void | Promise<void>): Promise<GpuCommand[]> {
  const { commands } = await recordCommands(device, async () => work());
  if (commands instanceof NotReplayable) throw commands;
  return commands;
}

const found = chooseDriver(['swiftshader', 'lavapipe']);
if ('missing' in found) describe.skip(`repeated commands (${found.missing})`, () => undefined);
else
  describe('repeated commands', function () {
    this.timeout(60_000);
    let device: GPUDevice;
    let machine: Machine;
    before(async () => {
      device = await requestDevice(createGpu());
      watchPipelines(device);
      machine = new Machine(device);
    });
    after(() => device.destroy());

    const program = async (
      commands: readonly GpuCommand[],
      given: readonly GPUBuffer[],
    ): Promise<ReplayProgram> =>
      ReplayProgram.build(
        new SigmoidAttentionKernels(device),
        new BufferArena(new BufferPool(device)),
        commands,
        given,
      );

    /** The program on new data in the place of what `x` held. */
    async function repeat(repeated: ReplayProgram, x: GPUBuffer, data: number): Promise<void> {
      device.queue.writeBuffer(repeated.bufferOf(x), 0, new Float32Array(LENGTH).fill(data));
      const encoder = device.createCommandEncoder();
      for (const part of repeated.parts)
        if (part.kind === 'gpu') for (const step of part.steps) step(encoder);
      device.queue.submit([encoder.finish()]);
    }

    it('do the same on other data, in buffers of their own', async () => {
      const [x, scratch, y] = [machine.filled(() => 1), machine.buffer(), machine.buffer()];
      const commands = await commandsOf(device, () => {
        machine.add(x, machine.weights, scratch, 2); // 2 (x + w)
        machine.add(scratch, x, y, 3); // 3 (2 (x + w) + x) = 9 x + 6 w
        machine.upload(scratch, 5);
        machine.add(scratch, y, x, 1); // 9 x + 6 w + 5, into the input's own buffer
      });
      assert.deepEqual(
        await machine.read(x),
        Array.from({ length: LENGTH }, (_, i) => 9 + 6 * i + 5),
      );
      const repeated = await program(commands, [x]);
      machine.upload(x, 77);
      for (const data of [10, -4]) {
        await repeat(repeated, x, data);
        assert.deepEqual(
          await machine.read(repeated.bufferOf(x)),
          Array.from({ length: LENGTH }, (_, i) => 9 * data + 6 * i + 5),
        );
      }
      assert.notEqual(repeated.bufferOf(scratch), scratch);
      assert.equal(repeated.bufferOf(machine.weights), machine.weights);
      assert.equal((await machine.read(x))[0], 77, 'the recorded buffers are left alone');
    });

    it('are equal for the same work in other buffers, and only then', async () => {
      const flow = async (factor: number, swap = false): Promise<string[]> => {
        const [x, first, second] = [machine.filled(() => 1), machine.buffer(), machine.buffer()];
        const commands = await commandsOf(device, () => {
          machine.add(x, machine.weights, first, factor);
          machine.add(first, machine.weights, second, 1);
          machine.add(swap ? second : first, swap ? first : second, x, 1);
        });
        return flowOf(commands, new Map([[x, 'x']]));
      };
      const once = await flow(2);
      assert.deepEqual(await flow(2), once);
      assert.notDeepEqual(await flow(3), once, 'another uniform');
      assert.notDeepEqual(await flow(2, true), once, 'operands the other way round');
    });

    it('leave the device as it was', async () => {
      const before = Object.getOwnPropertyNames(device).sort();
      const { createCommandEncoder } = device;
      await commandsOf(device, () => machine.add(machine.weights, machine.weights, machine.buffer(), 1));
      await assert.rejects(
        recordCommands(device, () => Promise.reject(new Error('of the work'))),
        /of the work/,
      );
      assert.equal(device.createCommandEncoder, createCommandEncoder);
      assert.deepEqual(Object.getOwnPropertyNames(device).sort(), before);
    });

    for (const { name, reason, work } of [
      {
        name: 'something is read back',
        reason: /read back/,
        work: async (): Promise<void> => void (await machine.read(machine.weights)),
      },
      {
        name: 'a pipeline does not say what it writes',
        reason: /before install/,
        work: () => new Machine(device, 'auto').add(machine.weights, machine.weights, machine.buffer(), 1),
      },
      {
        name: 'a method is called that nobody knows',
        reason: /GPUCommandEncoder\.resolveQuerySet/,
        work: () => {
          const set = device.createQuerySet({ type: 'timestamp', count: 1 });
          const target = device.createBuffer({ size: 8, usage: GPUBufferUsage.QUERY_RESOLVE });
          const encoder = device.createCommandEncoder();
          encoder.resolveQuerySet(set, 0, 1, target, 0);
          device.queue.submit([encoder.finish()]);
        },
      },
      {
        name: 'shaders are timed',
        reason: /profiles/,
        work: () => {
          const querySet = device.createQuerySet({ type: 'timestamp', count: 1 });
          const encoder = device.createCommandEncoder();
          encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 0 } }).end();
          device.queue.submit([encoder.finish()]);
        },
      },
    ])
      it(`are not repeated when ${name}`, () => assert.rejects(commandsOf(device, work), reason));

    it('are not repeated when they were encoded before', async () => {
      const early = device.createCommandEncoder().finish();
      await assert.rejects(
        commandsOf(device, () => device.queue.submit([early])),
        /encoded before/,
      );
    });

    it('are not repeated when they depend on what an earlier run left', async () => {
      const state = machine.filled(() => 1);
      const commands = await commandsOf(device, () => {
        machine.add(machine.weights, state, machine.buffer(), 1);
        machine.add(machine.weights, machine.weights, state, 1);
      });
      await assert.rejects(program(commands, []), /read that is written only later/);
    });
  });
