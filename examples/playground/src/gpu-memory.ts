/** Counts the bytes of buffers that are alive on a device, to show what a model needs while it runs. */

export class GpuMemory {
  #alive = 0;
  #peak = 0;

  constructor(device: GPUDevice) {
    const { createBuffer } = device;
    device.createBuffer = (descriptor) => {
      const buffer = createBuffer.call(device, descriptor);
      const { destroy, size } = buffer;
      let isAlive = true;
      this.#alive += size;
      this.#peak = Math.max(this.#peak, this.#alive);
      buffer.destroy = () => {
        if (isAlive) this.#alive -= size;
        isAlive = false;
        return destroy.call(buffer);
      };
      return buffer;
    };
  }

  /** Starts a new measurement; returns the bytes alive now. */
  begin(): number {
    this.#peak = this.#alive;
    return this.#alive;
  }

  /** The most bytes that were alive since `begin`. */
  get peak(): number {
    return this.#peak;
  }
}
