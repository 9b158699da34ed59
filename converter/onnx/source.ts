/**
 * Where a model's bytes come from: an array, or a random-access reader over a file that may exceed 2 GiB. Reading is
 * synchronous and by span, so a large file is never held as a whole.
 */
import { ModelFormatError } from './error.js';

export interface ByteSource {
  /** Total bytes. */
  readonly size: number;
  /** The bytes `[start, end)`. The result is only read, never written. */
  read(start: number, end: number): Uint8Array;
}

/** Half-open byte range of a source. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Looks up the bytes of an external data file by the location that the model states. */
export type ExternalData = (location: string) => ByteSource | null;

export class MemorySource implements ByteSource {
  readonly size: number;

  constructor(private readonly bytes: Uint8Array) {
    this.size = bytes.length;
  }

  read(start: number, end: number): Uint8Array {
    return this.bytes.subarray(start, end);
  }
}

/** Bytes that a window over a large source holds at a time. */
const WINDOW_BYTES = 1 << 16;

/** Byte-wise access to a source through a sliding window. */
export class Window {
  private bytes: Uint8Array = new Uint8Array(0);
  private base = 0;

  constructor(readonly source: ByteSource) {
    if (source instanceof MemorySource) this.bytes = source.read(0, source.size);
  }

  byteAt(position: number): number {
    const index = position - this.base;
    if (index >= 0 && index < this.bytes.length) return this.bytes[index]!;
    this.load(position, position + 1);
    return this.bytes[position - this.base]!;
  }

  /** A view of `[start, end)`; served from the window where it fits. */
  view(start: number, end: number): Uint8Array {
    if (start < this.base || end > this.base + this.bytes.length) {
      if (end - start > WINDOW_BYTES) return this.source.read(start, end);
      this.load(start, end);
    }
    return this.bytes.subarray(start - this.base, end - this.base);
  }

  private load(start: number, end: number): void {
    if (start < 0 || end > this.source.size) {
      throw new ModelFormatError(
        `the model ends at byte ${this.source.size}, data up to byte ${end} was expected`,
        start,
      );
    }
    this.base = start;
    this.bytes = this.source.read(start, Math.min(this.source.size, Math.max(end, start + WINDOW_BYTES)));
  }
}
