// Command containerd-shim-runc-v2 is containerd's shim, newer than Debian's: that one stops for ever
// when some sixty commands start in one container at once (its reaper waits for a lock that the
// starting of a command holds while it waits for the reaper).
package main

import (
	"context"

	"github.com/containerd/containerd/runtime/v2/runc/manager"
	_ "github.com/containerd/containerd/runtime/v2/runc/pause"
	_ "github.com/containerd/containerd/runtime/v2/runc/task/plugin"
	"github.com/containerd/containerd/runtime/v2/shim"
)

func main() {
	shim.RunManager(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}
