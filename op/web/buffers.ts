/** GPU buffers that are used again from run to run. */

/** Sizes are rounded up to a power of two or one and a half times one, so that nearly equal ones share buffers. */
function bucketBytes(bytes: number): number {
  let size = 256;
  while (size < bytes) size *= 2;
  const between = (size / 4) * 3;
  return between >= bytes && between % 256 === 0 ? between : size;
}

const STORAGE_USAGE = 0x80 | 0x04 | 0x08; // GPUBufferUsage.STORAGE | COPY_SRC | COPY_DST

const USAGE = {
  storage: STORAGE_USAGE,
  readback: 0x01 | 0x08, // GPUBufferUsage.MAP_READ | COPY_DST
  constants: STORAGE_USAGE | 0x40, // GPUBufferUsage.UNIFORM
} as const;

export type BufferPurpose = keyof typeof USAGE;

/** Buffers not in use beyond which the pool frees instead of keeping. */
const MAX_IDLE_BYTES = 1 << 28;

export class BufferPool {
  readonly #device: GPUDevice;
  readonly #idle = new Map<string, GPUBuffer[]>();
  readonly #purpose = new WeakMap<GPUBuffer, BufferPurpose>();
  #alive = 0;
  #idleBytes = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Buffers that exist, in use or idle. */
  get alive(): number {
    return this.#alive;
  }

  /** A buffer of at least `bytes`. Rejects when the device has no memory left. */
  async acquire(bytes: number, purpose: BufferPurpose = 'storage'): Promise<GPUBuffer> {
    const size = bucketBytes(bytes);
    const idle = this.#idle.get(`${purpose} ${size}`)?.pop();
    if (idle !== undefined) {
      this.#idleBytes -= size;
      return idle;
    }
    this.#device.pushErrorScope('out-of-memory');
    this.#device.pushErrorScope('validation');
    const buffer = this.#device.createBuffer({
      label: `SigmoidAttention ${purpose}`,
      size,
      usage: USAGE[purpose],
    });
    const errors = await Promise.all([this.#device.popErrorScope(), this.#device.popErrorScope()]);
    const error = errors.find((found) => found !== null);
    if (error) {
      buffer.destroy();
      throw new Error(
        `a GPU buffer of ${size} bytes could not be allocated: ${error.message || 'out of memory'}`,
      );
    }
    this.#alive++;
    this.#purpose.set(buffer, purpose);
    return buffer;
  }

  /** Gives a buffer back. Commands that use it may be in the queue: what is submitted later runs later. */
  release(buffer: GPUBuffer): void {
    if (this.#idleBytes + buffer.size > MAX_IDLE_BYTES) {
      buffer.destroy();
      this.#alive--;
      return;
    }
    const key = `${this.#purpose.get(buffer)!} ${buffer.size}`;
    const idle = this.#idle.get(key);
    if (idle === undefined) this.#idle.set(key, [buffer]);
    else idle.push(buffer);
    this.#idleBytes += buffer.size;
  }

  /** Frees the idle buffers. */
  trim(): void {
    for (const buffers of this.#idle.values())
      for (const buffer of buffers) {
        buffer.destroy();
        this.#alive--;
      }
    this.#idle.clear();
    this.#idleBytes = 0;
  }
}

/** Buffers of a pool that go back to it together. */
export class BufferArena {
  readonly #pool: BufferPool;
  readonly #held: GPUBuffer[] = [];

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  get bytes(): number {
    return this.#held.reduce((sum, { size }) => sum + size, 0);
  }

  async acquire(bytes: number, purpose: BufferPurpose = 'storage'): Promise<GPUBuffer> {
    const buffer = await this.#pool.acquire(bytes, purpose);
    this.#held.push(buffer);
    return buffer;
  }

  release(): void {
    for (const buffer of this.#held.splice(0)) this.#pool.release(buffer);
  }
}
