//go:build unix

package local

import (
	"os"
	"syscall"
)

// ownGroup also keeps an interrupt at the terminal from the children: who
// starts them ends them.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func killGroup(p *os.Process) {
	if err := syscall.Kill(-p.Pid, syscall.SIGKILL); err != nil {
		p.Kill()
	}
}
