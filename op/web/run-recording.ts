/** Collects the commands of a whole run of a cut model: those of the recorded pieces, the calls of our kernels, and what is left. */

import type { Tensor } from 'onnxruntime-common';
import { NotReplayable, recordCommands } from './command-recorder.js';
import { type AttentionCall, type Command, flowOf, type Value, valueOf } from './commands.js';
import type { Feeds, Results } from './runtime.js';
import { bytesOf } from './upload.js';

/** A value in CPU memory that recorded commands may depend on. */
export interface Fixed {
  readonly value: Value;
  readonly bytes: Uint8Array;
}

export class RunRecording {
  readonly commands: Command[] = [];
  /** Feeds by the buffer that they were read from. */
  readonly given = new Map<GPUBuffer, string>();
  /** CPU values that recorded pieces returned: they only depend on shapes. */
  readonly constants = new Map<string, Fixed>();
  /** CPU values that live pieces return and recorded ones read: they must be the same again. */
  readonly guards = new Map<string, Fixed>();
  readonly outputs = new Map<string, Value>();
  readonly #device: GPUDevice;
  readonly #feedNames: ReadonlySet<string>;
  #obstacle: NotReplayable | undefined;

  constructor(device: GPUDevice, feedNames: readonly string[]) {
    this.#device = device;
    this.#feedNames = new Set(feedNames);
  }

  /** Why the run cannot be repeated, as far as is known. */
  get obstacle(): NotReplayable | undefined {
    return this.#obstacle;
  }

  #refuse(reason: string): void {
    this.#obstacle ??= new NotReplayable(reason);
  }

  /** Notes that a feed is read from a buffer. */
  give(buffer: GPUBuffer, name: string): void {
    const other = this.given.get(buffer);
    if (!this.#feedNames.has(name)) this.#refuse(`'${name}' is uploaded`);
    else if (other !== undefined && other !== name) this.#refuse(`'${other}' and '${name}' share a buffer`);
    else this.given.set(buffer, name);
  }

  attention(call: Omit<AttentionCall, 'kind'>): void {
    this.commands.push({ kind: 'attention', ...call });
  }

  /** Runs a piece. It stays live where it reads CPU memory of the caller or its commands cannot be given again. */
  async piece(stage: number, feeds: Feeds, run: () => Promise<Results>): Promise<Results> {
    const onCpu = Object.entries(feeds).filter(([, { location }]) => location !== 'gpu-buffer');
    const readsCaller = onCpu.some(([name]) => this.#feedNames.has(name));
    const inputs = valuesOf(feeds);
    const { result, commands } = readsCaller
      ? { result: await run(), commands: undefined }
      : await recordCommands(this.#device, run);
    if (commands === undefined || commands instanceof NotReplayable) {
      this.commands.push({ kind: 'piece', stage, inputs, outputs: valuesOf(result) });
      return result;
    }
    this.commands.push(...commands);
    for (const [name, tensor] of onCpu)
      if (!this.constants.has(name)) this.guards.set(name, this.#fixed(tensor));
    for (const [name, tensor] of Object.entries(result))
      if (tensor.location !== 'gpu-buffer') this.constants.set(name, this.#fixed(tensor));
    return result;
  }

  output(name: string, tensor: Tensor): void {
    if (this.#feedNames.has(name)) this.#refuse(`the output '${name}' is an input`);
    this.outputs.set(name, valueOf(tensor));
  }

  #fixed(tensor: Tensor): Fixed {
    if (tensor.type === 'string') this.#refuse('strings cross a cut');
    const bytes = tensor.type === 'string' ? new Uint8Array() : bytesOf(tensor).slice();
    return { value: valueOf(tensor), bytes };
  }

  /** The same for two runs that do the same on the GPU. */
  flow(): string[] {
    return flowOf(this.commands, this.given);
  }
}

const valuesOf = (tensors: Feeds): Map<string, Value> =>
  new Map(Object.entries(tensors).map(([name, tensor]) => [name, valueOf(tensor)]));
