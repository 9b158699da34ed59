/**
 * Recorded commands on buffers of their own. What the runtime's buffers held is kept apart for every buffer that was written;
 * those that were only read (weights) are the runtime's still, and uniforms and other data from the CPU are constants.
 */

import type { SigmoidAttentionKernels } from '../../wgsl/attention.js';
import type { GpuInputs, GpuOutputs, GpuTensor } from '../../wgsl/tensor.js';
import type { BufferArena } from './buffers.js';
import { NotReplayable } from './command-recorder.js';
import {
  type AttentionCall,
  type Binding,
  type Command,
  type Dispatch,
  type LivePiece,
  readBy,
  type Write,
  writtenBy,
} from './commands.js';
import { upload } from './upload.js';

/** Offsets of uniform and storage bindings, by default the strictest that WebGPU allows. */
const ALIGNMENT = 256;

interface ReadyDispatch {
  readonly pipeline: GPUComputePipeline;
  readonly groups: readonly (readonly [number, GPUBindGroup])[];
  readonly grid: readonly [number, number, number];
}

/** Appends to an encoder; `true` where the commands after it need no new pass. */
type Step = (encoder: GPUCommandEncoder) => void;

/** Steps of the GPU, and between them pieces that the runtime runs. */
export type ProgramPart = { readonly kind: 'gpu'; readonly steps: readonly Step[] } | LivePiece;

interface Slice {
  readonly offset: number;
  readonly bytes: number;
}

export class ReplayProgram {
  readonly parts: readonly ProgramPart[];
  readonly #ownBuffers: ReadonlyMap<GPUBuffer, GPUBuffer>;

  private constructor(parts: readonly ProgramPart[], ownBuffers: ReadonlyMap<GPUBuffer, GPUBuffer>) {
    this.parts = parts;
    this.#ownBuffers = ownBuffers;
  }

  /**
   * @param given buffers that are filled before the program runs
   * @throws NotReplayable where something is read that no command wrote and that later changes
   */
  static async build(
    kernels: SigmoidAttentionKernels,
    arena: BufferArena,
    commands: readonly Command[],
    given: readonly GPUBuffer[],
  ): Promise<ReplayProgram> {
    const builder = new Builder(kernels, arena, commands, given);
    await builder.allocate();
    return new ReplayProgram(builder.parts(), builder.ownBuffers);
  }

  /** The buffer in which the program has what lay in one of the recorded run. */
  bufferOf(recorded: GPUBuffer): GPUBuffer {
    return this.#ownBuffers.get(recorded) ?? recorded;
  }
}

class Builder {
  readonly ownBuffers = new Map<GPUBuffer, GPUBuffer>();
  readonly #kernels: SigmoidAttentionKernels;
  readonly #arena: BufferArena;
  readonly #commands: readonly Command[];
  /** Buffers whose every content came from the CPU. */
  readonly #dataBuffers: ReadonlySet<GPUBuffer>;
  readonly #owned: ReadonlySet<GPUBuffer>;
  readonly #sliceOf = new Map<Write, Slice>();
  #constants: GPUBuffer | undefined;

  constructor(
    kernels: SigmoidAttentionKernels,
    arena: BufferArena,
    commands: readonly Command[],
    given: readonly GPUBuffer[],
  ) {
    this.#kernels = kernels;
    this.#arena = arena;
    this.#commands = commands;
    const written = new Set(commands.flatMap(writtenBy));
    checkOrder(commands, written, new Set(given));
    const byOthers = new Set(commands.filter(({ kind }) => kind !== 'write').flatMap(writtenBy));
    this.#dataBuffers = new Set([...written].filter((buffer) => !byOthers.has(buffer)));
    this.#owned = new Set([...given, ...byOthers]);
  }

  async allocate(): Promise<void> {
    for (const buffer of this.#owned) this.ownBuffers.set(buffer, await this.#arena.acquire(buffer.size));
    let bytes = 0;
    const writes = this.#commands.filter((command) => command.kind === 'write');
    for (const write of writes) {
      // A shader may see the whole buffer although only its start was written.
      const size = this.#dataBuffers.has(write.buffer) ? write.buffer.size : write.data.length;
      this.#sliceOf.set(write, { offset: bytes, bytes: size });
      bytes += Math.ceil(size / ALIGNMENT) * ALIGNMENT;
    }
    if (bytes === 0) return;
    this.#constants = await this.#arena.acquire(bytes, 'constants');
    const data = new Uint8Array(bytes);
    for (const [{ data: part, offset, buffer }, slice] of this.#sliceOf)
      data.set(part, slice.offset + (this.#dataBuffers.has(buffer) ? offset : 0));
    upload(this.#kernels.device, this.#constants, data);
  }

  parts(): ProgramPart[] {
    const parts: ProgramPart[] = [];
    let steps: Step[] = [];
    let dispatches: ReadyDispatch[] = [];
    const lastWrite = new Map<GPUBuffer, Write>();
    const endPass = (): void => {
      if (dispatches.length === 0) return;
      const list = dispatches;
      dispatches = [];
      steps.push((encoder) => encodeAll(encoder, list));
    };
    for (const command of this.#commands) {
      if (command.kind === 'dispatch') {
        dispatches.push(this.#dispatch(command, lastWrite));
        continue;
      }
      if (command.kind === 'write' && this.#dataBuffers.has(command.buffer)) {
        lastWrite.set(command.buffer, command);
        continue;
      }
      endPass();
      if (command.kind === 'piece') {
        parts.push({ kind: 'gpu', steps }, command);
        steps = [];
      } else steps.push(this.#step(command, lastWrite));
    }
    endPass();
    parts.push({ kind: 'gpu', steps });
    return parts;
  }

  #step(command: Exclude<Command, Dispatch | LivePiece>, lastWrite: ReadonlyMap<GPUBuffer, Write>): Step {
    switch (command.kind) {
      case 'clear': {
        const buffer = this.#own(command.buffer);
        return (encoder) => encoder.clearBuffer(buffer, command.offset, command.bytes);
      }
      case 'copy': {
        const { toOffset, bytes } = command;
        const to = this.#own(command.to);
        const { buffer, offset } = this.#place(command.from, command.fromOffset, bytes, lastWrite);
        return (encoder) => encoder.copyBufferToBuffer(buffer, offset, to, toOffset, bytes);
      }
      case 'write': {
        const { offset, bytes } = this.#sliceOf.get(command)!;
        const to = this.#own(command.buffer);
        return (encoder) => encoder.copyBufferToBuffer(this.#constants!, offset, to, command.offset, bytes);
      }
      case 'attention':
        return this.#attention(command);
    }
  }

  #attention({ site, inputs, outputs }: AttentionCall): Step {
    const moved = (tensors: Readonly<Record<string, GpuTensor>>): Record<string, GpuTensor> =>
      Object.fromEntries(
        Object.entries(tensors).map(([name, tensor]) => [
          name,
          { ...tensor, buffer: this.#own(tensor.buffer) },
        ]),
      );
    const ownInputs = moved(inputs as Record<string, GpuTensor>) as unknown as GpuInputs;
    const ownOutputs = moved(outputs as Record<string, GpuTensor>) as unknown as GpuOutputs;
    return (encoder) => this.#kernels.encode(encoder, ownInputs, ownOutputs, site.attributes);
  }

  #dispatch({ pipeline, groups, grid }: Dispatch, lastWrite: ReadonlyMap<GPUBuffer, Write>): ReadyDispatch {
    return {
      pipeline,
      grid,
      groups: groups.map(({ index, layout, bindings }) => [
        index,
        this.#kernels.device.createBindGroup({
          layout,
          entries: bindings.map((binding) => ({
            binding: binding.binding,
            resource: this.#resource(binding, lastWrite),
          })),
        }),
      ]),
    };
  }

  #resource(
    { buffer, offset, size, access }: Binding,
    lastWrite: ReadonlyMap<GPUBuffer, Write>,
  ): GPUBufferBinding {
    if (access === 'uniform' && !this.#dataBuffers.has(buffer))
      throw new NotReplayable('a uniform is not written from the CPU');
    return { ...this.#place(buffer, offset, size, lastWrite), size };
  }

  /** Where the program finds what lies at an offset of a recorded buffer. */
  #place(
    buffer: GPUBuffer,
    offset: number,
    size: number,
    lastWrite: ReadonlyMap<GPUBuffer, Write>,
  ): { buffer: GPUBuffer; offset: number } {
    if (!this.#dataBuffers.has(buffer)) return { buffer: this.#own(buffer), offset };
    const write = lastWrite.get(buffer);
    if (write === undefined || write.offset !== 0 || offset + size > buffer.size)
      throw new NotReplayable('data from the CPU is written in parts');
    return { buffer: this.#constants!, offset: this.#sliceOf.get(write)!.offset + offset };
  }

  #own(buffer: GPUBuffer): GPUBuffer {
    return this.ownBuffers.get(buffer) ?? buffer;
  }
}

function encodeAll(encoder: GPUCommandEncoder, dispatches: readonly ReadyDispatch[]): void {
  const pass = encoder.beginComputePass();
  let last: GPUComputePipeline | undefined;
  for (const { pipeline, groups, grid } of dispatches) {
    if (pipeline !== last) pass.setPipeline((last = pipeline));
    for (const [index, group] of groups) pass.setBindGroup(index, group);
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
  }
  pass.end();
}

/** What a run wrote must not be read before it was: then it depends on what earlier runs left. */
function checkOrder(
  commands: readonly Command[],
  written: ReadonlySet<GPUBuffer>,
  given: ReadonlySet<GPUBuffer>,
): void {
  const filled = new Set(given);
  for (const command of commands) {
    for (const buffer of readBy(command))
      if (written.has(buffer) && !filled.has(buffer))
        throw new NotReplayable('a buffer is read that is written only later');
    for (const buffer of writtenBy(command)) filled.add(buffer);
  }
}
