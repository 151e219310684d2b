#include "tools/memosctl/ctl.h"
enum memos_status ctl_run_chat(struct ctl *ctl, struct memos_error *err)
{
    (void)ctl;
    return memos_fail(err, MEMOS_UNSUPPORTED, "not yet");
}
