// A button that restarts a run.

rooms.restart_button = (ctx) => press_room(ctx, "restart", { starting: "queued" });
