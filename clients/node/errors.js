/** What a failed call says, read from its status. */
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const DETAILS_KEY = 'grpc-status-details-bin';

// The little of google.rpc's wire form that says why: a status holds details, one an ErrorInfo.
const wire = protoLoader.fromJSON({
  nested: {
    Status: { fields: { details: { rule: 'repeated', type: 'Detail', id: 3 } } },
    Detail: { fields: { typeUrl: { type: 'string', id: 1 }, value: { type: 'bytes', id: 2 } } },
    ErrorInfo: { fields: { reason: { type: 'string', id: 1 } } },
  },
});

/**
 * A call failed.
 *
 * `code` is the name of the gRPC status, such as `NOT_FOUND`. `reason` is a name of the
 * contract's ErrorReason without its prefix, such as `UNKNOWN_PROFILE`; empty where the failure
 * did not come from semroute.
 */
export class RouterError extends Error {
  /**
   * @param {string} code
   * @param {string} reason
   * @param {string} message
   */
  constructor(code, reason, message) {
    super(message);
    this.name = 'RouterError';
    this.code = code;
    this.reason = reason;
  }

  /**
   * From what a gRPC call threw; anything else is returned as it is.
   *
   * @param {any} error
   * @returns {Error}
   */
  static from(error) {
    if (!(error?.metadata instanceof grpc.Metadata)) return error;
    const [packed] = error.metadata.get(DETAILS_KEY);
    return new RouterError(grpc.status[error.code], packed ? reasonIn(packed) : '', error.details);
  }
}

/** @param {Buffer} packed a serialised google.rpc.Status */
function reasonIn(packed) {
  const details = wire.Status.deserialize(packed).details ?? [];
  const info = details.find(({ typeUrl }) => typeUrl.endsWith('/google.rpc.ErrorInfo'));
  return info ? wire.ErrorInfo.deserialize(info.value).reason : '';
}
