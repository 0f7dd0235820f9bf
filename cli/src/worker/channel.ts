import { Client as Channel, credentials } from '@grpc/grpc-js';

const MESSAGE_LIMIT = 64 * 1024 * 1024;

/**
 * Opens a channel to a worker on a Unix socket. It connects at the first call.
 *
 * There is no keepalive: a socket reports a dead peer by itself, and a Python server ends an idle stream that pings
 * more often than it likes ("excess pings").
 */
export function openChannel(socketPath: string): Channel {
  return new Channel(`unix:${socketPath}`, credentials.createInsecure(), {
    'grpc.max_send_message_length': MESSAGE_LIMIT,
    'grpc.max_receive_message_length': MESSAGE_LIMIT,
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 200,
    // Two channels to one path must not share a connection: a new worker may sit where a dead one sat.
    'grpc.use_local_subchannel_pool': 1,
  });
}
