/** What a fuzz target is: code that takes hostile bytes, and the only errors it may answer with. */

/** How inputs are mutated: `bytes` blindly, `protobuf` by fields of messages as well. */
export type Shape = 'bytes' | 'protobuf';

export interface Target {
  readonly shape: Shape;
  /** Longest input, bytes. */
  readonly maxLength: number;
  /**
   * Runs the code once. Throws (or rejects with) what the code throws.
   * @throws Violation when a property beyond "throws only clear errors" does not hold
   */
  run(input: Uint8Array): void | Promise<void>;
  /** Whether the error is one that a user of hostile input should see. */
  isClear(error: unknown): boolean;
}

/** A property that must hold for every input did not. */
export class Violation extends Error {
  override readonly name = 'Violation';
}
