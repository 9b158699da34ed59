/**
 * The protobuf wire format, read in place: a cursor over the fields of one message that never trusts a length. Fields that
 * the caller does not know are skipped, whatever they hold.
 */
import { ModelFormatError } from './error.js';
import type { Span, Window } from './source.js';

const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/** Names are far shorter; without a limit a few of them could fill the memory. */
const MAX_NAME_BYTES = 1 << 20;

const decoder = new TextDecoder('utf-8', { fatal: false });

export class Cursor {
  /** Number of the current field. */
  field = 0;
  wire = 0;
  /** First byte of the current field, its tag included. */
  fieldStart = 0;
  /** Payload of the current field. */
  start = 0;
  end = 0;
  /** Value of a varint field (signed 64 bits, exact up to 2^53). */
  value = 0;
  private position: number;

  constructor(
    readonly window: Window,
    start: number,
    private readonly limit: number,
  ) {
    this.position = start;
  }

  /** Moves to the next field; false at the end of the message. */
  next(): boolean {
    if (this.position >= this.limit) return false;
    this.fieldStart = this.position;
    const tag = this.varint();
    this.field = Math.floor(tag / 8);
    this.wire = tag % 8;
    if (this.field < 1 || tag < 0)
      throw new ModelFormatError(`field number ${this.field} is not allowed`, this.fieldStart);
    this.start = this.position;
    switch (this.wire) {
      case VARINT:
        this.value = this.varint();
        this.end = this.position;
        break;
      case FIXED64:
        this.end = this.start + 8;
        break;
      case LENGTH_DELIMITED: {
        const length = this.varint();
        this.start = this.position;
        this.end = this.start + length;
        if (length < 0)
          throw new ModelFormatError(`a length of ${length} bytes is not allowed`, this.fieldStart);
        break;
      }
      case FIXED32:
        this.end = this.start + 4;
        break;
      default:
        throw new ModelFormatError(`wire type ${this.wire} is not known`, this.fieldStart);
    }
    if (this.end > this.limit) {
      throw new ModelFormatError(
        `field ${this.field} needs ${this.end - this.start} bytes, its message has ${this.limit - this.start} left`,
        this.fieldStart,
      );
    }
    this.position = this.end;
    return true;
  }

  get span(): Span {
    return { start: this.start, end: this.end };
  }

  /** @param limit longest text in bytes that is not refused as hostile */
  text(limit = MAX_NAME_BYTES): string {
    this.expect(LENGTH_DELIMITED);
    if (this.end - this.start > limit) {
      throw new ModelFormatError(
        `the text in field ${this.field} has ${this.end - this.start} bytes, at most ${limit} are allowed`,
        this.fieldStart,
      );
    }
    return decoder.decode(this.window.view(this.start, this.end));
  }

  bytes(): Uint8Array {
    this.expect(LENGTH_DELIMITED);
    return this.window.source.read(this.start, this.end);
  }

  integer(): number {
    this.expect(VARINT);
    return this.value;
  }

  float(): number {
    this.expect(FIXED32);
    const view = this.window.view(this.start, this.end);
    return new DataView(view.buffer, view.byteOffset, 4).getFloat32(0, true);
  }

  /** A cursor over the message in the current field. */
  message(): Cursor {
    this.expect(LENGTH_DELIMITED);
    return new Cursor(this.window, this.start, this.end);
  }

  /** Appends a repeated varint field, packed or not. */
  integers(into: number[]): void {
    if (this.wire === VARINT) {
      into.push(this.value);
      return;
    }
    this.expect(LENGTH_DELIMITED);
    const packed = new Cursor(this.window, this.start, this.end);
    while (packed.position < packed.limit) into.push(packed.varint());
    if (packed.position !== packed.limit)
      throw new ModelFormatError('packed integers overrun their field', this.fieldStart);
  }

  /** Appends a repeated float field, packed or not. */
  floats(into: number[]): void {
    if (this.wire === FIXED32) {
      into.push(this.float());
      return;
    }
    this.expect(LENGTH_DELIMITED);
    const view = this.window.view(this.start, this.end);
    if (view.length % 4 !== 0) throw new ModelFormatError('packed floats are cut off', this.fieldStart);
    const data = new DataView(view.buffer, view.byteOffset, view.length);
    for (let i = 0; i < view.length; i += 4) into.push(data.getFloat32(i, true));
  }

  private expect(wire: number): void {
    if (this.wire !== wire) {
      throw new ModelFormatError(
        `field ${this.field} has wire type ${this.wire}, not ${wire}`,
        this.fieldStart,
      );
    }
  }

  private varint(): number {
    const begin = this.position;
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.position >= this.limit) throw new ModelFormatError('a number is cut off', begin);
      const byte = this.window.byteAt(this.position++);
      const bits = byte & 0x7f;
      if (shift < 28) low += bits * 2 ** shift;
      else if (shift === 28) {
        low += (bits & 0x0f) * 2 ** 28;
        high += bits >> 4;
      } else high += bits * 2 ** (shift - 32);
      if (byte < 0x80)
        return low + (high % 2 ** 32 >= 2 ** 31 ? (high % 2 ** 32) - 2 ** 32 : high % 2 ** 32) * 2 ** 32;
    }
    throw new ModelFormatError('a number is longer than ten bytes', begin);
  }
}

/** Bytes of an unsigned varint. */
export function varintBytes(value: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    out.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  out.push(rest);
  return Uint8Array.from(out);
}

/** Tag and length of a length-delimited field. */
export function fieldHeader(field: number, length: number): Uint8Array {
  return concatenate([varintBytes(field * 8 + LENGTH_DELIMITED), varintBytes(length)]);
}

export function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
